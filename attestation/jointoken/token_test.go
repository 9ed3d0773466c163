package jointoken_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/attestation/jointoken"
)

func newToken(t testing.TB) jointoken.Token {
	t.Helper()
	tok, err := jointoken.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenIsReadBackFromItsText(t *testing.T) {
	tok := newToken(t)
	for _, text := range []string{tok.Reveal(), tok.Reveal() + "\n", "  " + tok.Reveal() + "\r\n"} {
		got, err := jointoken.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got != tok {
			t.Errorf("%q: another token", text)
		}
	}
	if !bytes.Equal(tok.Hash(), jointoken.HashSecret(tok.SecretText())) {
		t.Error("the server would keep another hash than that of what the host sends")
	}
	if newToken(t) == tok {
		t.Error("two tokens are equal")
	}
}

func TestTokenNeverPrintsItself(t *testing.T) {
	tok := newToken(t)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.InfoContext(t.Context(), "joining", slog.Any("token", tok), slog.Any("pointer", &tok), slog.Any("any", map[string]any{"t": tok}))
	slog.New(slog.NewTextHandler(&log, nil)).InfoContext(t.Context(), "joining", slog.Any("token", tok))
	fmt.Fprintf(&log, "%v %+v %#v %s %q %x %d %v %s", tok, tok, tok, tok, tok, tok, tok, &tok, []any{tok})
	fmt.Fprintln(&log, tok, struct{ T jointoken.Token }{tok}, tok.String())
	if err := json.NewEncoder(&log).Encode(map[string]any{"t": tok}); err != nil {
		t.Fatal(err)
	}
	out := log.String()
	for _, leak := range []string{tok.SecretText(), fmt.Sprintf("%x", tok.Secret[:]), fmt.Sprint(tok.Secret[:4])[1:8]} { //nolint:staticcheck // the bytes, not their text
		if strings.Contains(out, leak) {
			t.Errorf("%q is in %s", leak, out)
		}
	}
	if !strings.Contains(out, "redacted") {
		t.Error("nothing was printed")
	}
}

func TestTextThatIsNoTokenIsRefusedWithoutRepeatingIt(t *testing.T) {
	text := newToken(t).Reveal()
	parts := strings.Split(text, ".")
	for name, bad := range map[string]string{
		"empty":             "",
		"another version":   "sgt2" + text[4:],
		"no pin":            parts[0] + "." + parts[1],
		"empty pin":         parts[0] + "." + parts[1] + ".",
		"a fourth part":     text + ".x",
		"short secret":      parts[0] + "." + parts[1][1:] + "." + parts[2],
		"long pin":          text + "A",
		"padding":           text + "=",
		"line break inside": parts[0] + "." + parts[1][:10] + "\n" + parts[1][10:] + "." + parts[2],
		"standard alphabet": parts[0] + "." + strings.Repeat("+", len(parts[1])) + "." + parts[2],
		"stray bits":        parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])-1) + "B",
		"64 KiB":            strings.Repeat("a", 64<<10),
	} {
		_, err := jointoken.Parse(bad)
		if !errors.Is(err, jointoken.ErrForm) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Contains(err.Error(), parts[1]) {
			t.Errorf("%s: the secret is in the error", name)
		}
	}
}

func TestTokenNeedsAPin(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		if _, err := jointoken.New(make([]byte, n)); err == nil {
			t.Errorf("a pin of %d bytes was taken", n)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(f).Reveal())
	f.Add("sgt1..")
	f.Add("sgt1.AAAA.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := jointoken.Parse(s)
		if err != nil {
			return
		}
		if diff := cmp.Diff(strings.TrimSpace(s), tok.Reveal()); diff != "" {
			t.Error(diff) // one token, one text
		}
	})
}
