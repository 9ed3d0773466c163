package cloudmap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"signet.example/internal/plain"
)

// mostInstances is as many as the API gives at most.
const mostInstances = 1000

// mostAnswer is more than a thousand instances have with thirty attributes each, and mostValue
// more than one of them has.
const mostAnswer, mostValue = 64 << 20, 512 << 10

// mostPlace is as long as the text of an address can be, and mostNamed how much of a text of an
// answer an error has.
const mostPlace, mostNamed = 45, 64

// found is one instance in an answer.
type found struct {
	Attributes map[string]string
}

// reduce reads an answer to DiscoverInstances, and returns it with the attributes alone that say
// where an instance is. Of what an answer has no more is in memory than one instance: who
// registers them can make it as large as the API lets it be, and that of many services at once.
// An answer without a list is none: that nobody is there is said by an empty one.
func reduce(r io.Reader) ([]byte, error) {
	w := &window{r: r}
	d := json.NewDecoder(w)
	w.used = d.InputOffset
	var left struct {
		Instances         []found
		InstancesRevision *int64 `json:",omitempty"`
	}
	if err := opens(d, '{'); err != nil {
		return nil, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "Instances":
			left.Instances, err = instances(d)
		case "InstancesRevision":
			err = d.Decode(&left.InstancesRevision)
		default:
			var skipped json.RawMessage
			err = d.Decode(&skipped)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", plain.Clip(fmt.Sprint(key), mostNamed), err)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if left.Instances == nil {
		return nil, errors.New("the answer has no list of instances")
	}
	return json.Marshal(left)
}

// instances reads a list.
func instances(d *json.Decoder) ([]found, error) {
	if err := opens(d, '['); err != nil {
		return nil, err
	}
	list := []found{}
	for d.More() {
		var in found
		if err := d.Decode(&in); err != nil {
			return nil, err
		}
		if len(list) == mostInstances {
			continue
		}
		place := map[string]string{}
		for _, name := range []string{attributeIPv4, attributeIPv6, attributePort} {
			if text, ok := in.Attributes[name]; ok && len(text) <= mostPlace {
				place[name] = text
			} else if ok {
				place[name] = "" // no address, and no port, as what it was
			}
		}
		list = append(list, found{place})
	}
	_, err := d.Token() // the end of it
	return list, err
}

// opens reads what an object or a list begins with.
func opens(d *json.Decoder, with json.Delim) error {
	switch t, err := d.Token(); {
	case err != nil:
		return err
	case t != with:
		return fmt.Errorf("%s in the place of %s", plain.Clip(fmt.Sprint(t), mostNamed), with)
	}
	return nil
}

// window lets no value become larger than mostValue while it is decoded.
type window struct {
	r    io.Reader
	read int64
	used func() int64 // how much of what was read is decoded
}

// Read implements io.Reader, in pieces: what is read ahead counts.
func (w *window) Read(b []byte) (int, error) {
	if w.read-w.used() > mostValue {
		return 0, fmt.Errorf("a value of more than %d bytes", mostValue)
	}
	n, err := w.r.Read(b[:min(len(b), 4<<10)])
	w.read += int64(n)
	return n, err
}
