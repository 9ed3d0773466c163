package jwt

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

const maxJSONDepth = 16

var (
	errNotJSON   = errors.New("not a JSON object")
	errDuplicate = errors.New("a name is given twice")
)

// decodeObject reads a JSON object and refuses what two readers could read
// differently: a name given twice (RFC 7519 4 lets a reader take either),
// invalid UTF-8, anything behind the object, nesting without end. Numbers stay
// as written.
func decodeObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errNotJSON
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, errNotJSON
	}
	return obj, nil
}

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil || depth > maxJSONDepth {
		return nil, errNotJSON // the decoder's error quotes its input
	}
	switch tok {
	case json.Delim('{'):
		return decodeMembers(dec, depth)
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := decodeValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, asNotJSON(err)
	}
	return tok, nil
}

func decodeMembers(dec *json.Decoder, depth int) (any, error) {
	obj := map[string]any{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, errNotJSON
		}
		if _, ok := obj[name]; ok {
			return nil, errDuplicate
		}
		if obj[name], err = decodeValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return obj, asNotJSON(err)
}

func asNotJSON(err error) error {
	if err != nil {
		return errNotJSON
	}
	return nil
}
