package dialect

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Stream decodes JSON piece by piece, for files that are larger than what is wanted of them,
// and knows where each piece stands.
type Stream struct {
	*json.Decoder

	content           []byte
	seen, line, start int // bytes that were looked at, lines among them, where the last one begins
}

// NewStream begins with the first byte.
func NewStream(content []byte) *Stream {
	return &Stream{Decoder: json.NewDecoder(bytes.NewReader(content)), content: content}
}

// Delim takes the next token, which has to be this one.
func (s *Stream) Delim(want json.Delim) error {
	got, err := s.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%v stands where %v has to", got, want)
	}
	return nil
}

// Skip goes past one value.
func (s *Stream) Skip() error { return s.Decode(&json.RawMessage{}) }

// Place is the line and column, from 1, so many bytes before where the decoder is. Each
// question is about a place behind the last one.
func (s *Stream) Place(before int) (line, column int) {
	offset := int(s.InputOffset()) - before
	for ; s.seen < offset && s.seen < len(s.content); s.seen++ {
		if s.content[s.seen] == '\n' {
			s.line, s.start = s.line+1, s.seen+1
		}
	}
	return s.line + 1, offset - s.start + 1
}
