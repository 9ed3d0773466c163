package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/api"
)

// section of the catalogue: ## SIG001 warning: title
var section = regexp.MustCompile(`(?m)^## (SIG\d+) ([a-z, ]+): `)

// severities is which a finding can have: an error makes calls fail, or will when
// something ends; a warning does not.
var severities = map[string][]api.Finding_Severity{
	findDisconnected: {sevWarning},
	findExpiry:       {sevError},
	findOverdue:      {sevWarning},
	findRejected:     {sevError},
	findPolicy:       {sevError},
	findNoPolicy:     {sevError, sevWarning},
	findIssuingCA:    {sevError},
	findConflict:     {sevError},
	findPeerMode:     {sevWarning},
	findNoGroup:      {sevError},
	findNotIssued:    {sevError},
	findAgentOwn:     {sevError, sevWarning, sevInfo},
	findOrphan:       {sevInfo},
	findAmbiguous:    {sevWarning},
	findNoAgent:      {sevError, sevWarning},
	findJWKS:         {sevError, sevWarning},
	findStale:        {sevError},
	findProxy:        {sevError},
	findSigner:       {sevError},
	findSignerUser:   {sevWarning},
	findOpenEgress:   {sevWarning},
	findTwoPlaces:    {sevError},
	findNoEndpoint:   {sevError, sevWarning},
	findNoProvider:   {sevError, sevWarning},
	findLogCut:       {sevError},
	findContested:    {sevError},
	findPolicyWarn:   {sevWarning},
	findAccessLog:    {sevWarning},
	findUnsafeMesh:   {sevWarning},
	findKeysLeft:     {sevWarning, sevInfo},
	findCloudMap:     {sevError, sevWarning},
	findObserved:     {sevWarning},
	findIngress:      {sevWarning},
	findUnseen:       {sevWarning},
	findNoIngress:    {sevWarning},
	findNoSpeaker:    {sevError, sevWarning},
	findWideSpeaker:  {sevWarning},
	findSpeaker:      {sevInfo},
	findApplication:  {sevError, sevWarning},
	findManyOfOne:    {sevWarning},
	findAwaited:      {sevWarning},
	findPostQuantum:  {sevError},
}

func TestTheCataloguePageHasEveryFinding(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "CHECKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range section.FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	for id, of := range severities {
		var words []string
		for _, s := range of {
			words = append(words, api.Word(s))
		}
		if documented[id] != strings.Join(words, ", ") {
			t.Errorf("%s: the page says %q, the program %q", id, documented[id], words)
		}
		delete(documented, id)
	}
	for id := range documented {
		t.Errorf("the page has %s and the program does not", id)
	}
	for _, s := range strings.Split(string(page), "\n## ")[1:] {
		if !strings.Contains(s, "**Cause.**") || !strings.Contains(s, "**Fix.**") {
			t.Errorf("a section without cause or fix: %.40s", s)
		}
	}
}
