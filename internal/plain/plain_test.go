package plain_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"signet.example/internal/plain"
)

func TestWhatIsNotShownAsItselfIsReplaced(t *testing.T) {
	for _, r := range []rune{
		'\n', '\r', '\t', 0x1b, 0, 0x7f, 0x85, 0x9b, // controls
		0x2028, 0x2029, // line ends
		0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069, 0x061c, // bidirectional
		0x00ad, 0x034f, 0x115f, 0x1160, 0x17b4, 0x180b, 0x180e, 0x200b, 0x200c, 0x200d, 0x2060, 0x2064, 0x2800, 0x3164, 0xfe0f, 0xfeff, 0xffa0, // without width
		0xe0001, 0xe0041, 0xe0100, 0xfff9, // tags, selectors, annotations
		0xa0, 0x2003, 0x3000, // other spaces
		0xe000, 0xfdd0, // private, never a character
	} {
		if got := plain.Line("a" + string(r) + "b"); got != "a\ufffdb" {
			t.Errorf("%U: %q", r, got)
		}
	}
	for _, s := range []string{"web-1.example", "Grüße", "日本語", "שלום", "a b"} {
		if got := plain.Line(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	if got := plain.Line("a\xff\xfeb"); !utf8.ValidString(got) || strings.Contains(got, "\xff") {
		t.Errorf("%q", got)
	}
}

func FuzzClipIsOneBoundedLine(f *testing.F) {
	f.Add("a\u202eb\x1b[2J", 3)
	f.Add("日本語", 4)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 0 || most > 1<<16 {
			return
		}
		got := plain.Clip(s, most)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > most+1 {
			t.Fatalf("%q of %d", got, most)
		}
		for _, r := range got {
			if r != utf8.RuneError && !plain.Shown(r) {
				t.Fatalf("%U is left", r)
			}
		}
	})
}

func FuzzPlainTextIsOneLineOfText(f *testing.F) {
	f.Add("x\ny\x1b[31m\u2028é")
	f.Add(string([]byte{0xff, 0xfe, 0x00}))
	f.Add(strings.Repeat("€", 2000))
	f.Fuzz(func(t *testing.T, s string) {
		out := plain.Text(s)
		if !utf8.ValidString(out) || utf8.RuneCountInString(out) > 2049 || strings.ContainsAny(out, "\n\r\x1b\x00\u2028\u2029\u009b\u202e\u2066\u200b\ufeff") {
			t.Errorf("%q", out)
		}
	})
}
