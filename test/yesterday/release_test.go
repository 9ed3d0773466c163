package yesterday

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// release is the one before this.
const release = "8ed3a1a"

// kept is the content of one of its files.
func kept(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", release, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// unpack puts the folders of an archive into dir, with their modes.
func unpack(t testing.TB, name, dir string) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(kept(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			err = place(archive, h, dir)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func place(archive io.Reader, h *tar.Header, dir string) error {
	if !filepath.IsLocal(h.Name) {
		return fmt.Errorf("%q leads out of its folder", h.Name)
	}
	path, mode := filepath.Join(dir, h.Name), fs.FileMode(h.Mode).Perm() //nolint:gosec // of our own making
	if h.Typeflag == tar.TypeDir {
		return errors.Join(os.Mkdir(path, mode), os.Chmod(path, mode))
	}
	content, err := io.ReadAll(archive)
	return errors.Join(err, os.WriteFile(path, content, mode), os.Chmod(path, mode))
}

// call is one call of its agent, with all that was said in it.
type call struct {
	method         string
	sent, received []message
}

type message struct {
	kind  protoreflect.FullName
	bytes []byte
}

// calls are those of its agent, in order: that of the run that joined, and after a
// restart those of the one that came back.
func calls(t testing.TB) (joined, back []*call) {
	t.Helper()
	type line struct {
		Process, Call int
		Method        string
		Sent          bool
		Type          protoreflect.FullName
		Message       []byte
	}
	type key struct{ process, call int }
	known, first := map[key]*call{}, 0
	z, err := gzip.NewReader(bytes.NewReader(kept(t, "wire.jsonl.gz")))
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(z); ; {
		var l line
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return joined, back
		} else if err != nil {
			t.Fatal(err)
		}
		k := key{l.Process, l.Call}
		c := known[k]
		if c == nil {
			c = &call{method: l.Method}
			known[k] = c
			if first == 0 {
				first = l.Process
			}
			if l.Process == first {
				joined = append(joined, c)
			} else {
				back = append(back, c)
			}
		}
		if m := (message{l.Type, l.Message}); l.Sent {
			c.sent = append(c.sent, m)
		} else {
			c.received = append(c.received, m)
		}
	}
}

// messages are what that release knows of the messages.
func messages(t testing.TB) *protoregistry.Files {
	t.Helper()
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(kept(t, "api.binpb"), &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// read is a message as that release reads it: what it does not know is gone.
func read(t testing.TB, files *protoregistry.Files, name protoreflect.FullName, content []byte) *dynamicpb.Message {
	t.Helper()
	d, err := files.FindDescriptorByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	md, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		t.Fatalf("%s is no message", name)
	}
	m := dynamicpb.NewMessage(md)
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(content, m); err != nil {
		t.Fatalf("%s: the release before does not read it: %v", name, err)
	}
	return m
}

// field of a message by its name of then.
func field(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}
