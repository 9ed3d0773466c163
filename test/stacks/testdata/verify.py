"""Verifies the chain in each folder by Python's cryptography: root.pem, issuing.pem, leaf.pem."""

import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

for folder in map(pathlib.Path, sys.argv[1:]):
    what, why = "ok", ""
    try:
        root, issuing, leaf = (
            x509.load_pem_x509_certificate((folder / name).read_bytes()) for name in ("root.pem", "issuing.pem", "leaf.pem")
        )
        for c in (root, issuing, leaf):
            list(c.extensions)  # all are parsed
        now = datetime.datetime.now(datetime.timezone.utc)
        verifier = PolicyBuilder().store(Store([root])).time(now.replace(tzinfo=None)).build_client_verifier()
        verifier.verify(leaf, [issuing])
    except Exception as e:  # whatever it is, it is a refusal
        what, why = "refused", repr(e).replace("\n", " ")
    print(folder.name, what, why, sep="\t")
