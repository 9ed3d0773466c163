package views

import (
	"slices"
	"testing"

	"signet.example/ads"
	"signet.example/api"
)

// Without it each change while something is withheld would leave its names behind.
func TestNamesOfFilesAreThoseOfWhatIsKept(t *testing.T) {
	set := func(files []string, clusters ...*ads.Resource) *ads.Set {
		s, err := ads.NewSet(clusters...)
		if err != nil {
			t.Fatal(err)
		}
		s, err = closeView(s, &api.View{Name: "n", TlsFiles: files}, nodeTypes)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kept := &ads.Resource{Type: ads.ClusterType, Name: "kept", Version: "1", Body: []byte("… file:/keys/kept.pem …")}
	now := &ads.Resource{Type: ads.ClusterType, Name: "now", Version: "1", Body: []byte("… file:/keys/now.pem …")}
	last := set([]string{"file:/keys/kept.pem", "file:/keys/gone.pem"}, kept)
	got := joined(set([]string{"file:/keys/now.pem"}, now), last, set(nil, kept, now)).GetTlsFiles()
	if !slices.Equal(got, []string{"file:/keys/now.pem", "file:/keys/kept.pem"}) {
		t.Errorf("%q", got)
	}
}
