import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.cert.*;
import java.util.List;
import java.util.Set;

/** Verifies the chain in each folder: root.pem, issuing.pem, leaf.pem. */
class Verify {
    public static void main(String[] folders) throws Exception {
        for (String folder : folders) {
            String what = "ok", why = "";
            try {
                X509Certificate root = read(folder, "root.pem"), issuing = read(folder, "issuing.pem"), leaf = read(folder, "leaf.pem");
                PKIXParameters params = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
                params.setRevocationEnabled(false);
                CertPath path = CertificateFactory.getInstance("X.509").generateCertPath(List.of(leaf, issuing));
                CertPathValidator.getInstance("PKIX").validate(path, params);
            } catch (GeneralSecurityException | RuntimeException e) {
                what = "refused";
                why = e.toString().replace('\n', ' ');
            }
            System.out.println(Path.of(folder).getFileName() + "\t" + what + "\t" + why);
        }
    }

    private static X509Certificate read(String folder, String name) throws Exception {
        try (InputStream in = Files.newInputStream(Path.of(folder, name))) {
            X509Certificate c = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
            c.getSubjectAlternativeNames();
            c.toString(); // all extensions are parsed
            return c;
        }
    }
}
