package ecs

// Rejoined is a text that was taken apart and joined again without an edit, and whether it could be read.
func Rejoined(file, text string) (string, bool) {
	d, err := read(file, text)
	if err != nil {
		return "", false
	}
	w := writer{from: d.text, all: true}
	w.b.WriteString(d.text[:d.root.start])
	w.value(d.root)
	w.b.WriteString(d.text[d.root.end:])
	return w.b.String(), true
}
