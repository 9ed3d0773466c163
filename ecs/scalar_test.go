package ecs_test

import (
	"reflect"
	"strings"
	"testing"

	"signet.example/ecs"
)

// TestATextOfLinesIsNotCutWhereItLooksLikeAComment: what is added stands behind all of it.
func TestATextOfLinesIsNotCutWhereItLooksLikeAComment(t *testing.T) {
	stack := file(t, "stack.yaml")
	for _, style := range []string{"|", ">-", "|+"} {
		script := "          EntryPoint:\n            - sh\n            - " + style + "\n              run\n              # the end\n\n              # of it\n"
		text := in(t, stack, "        - Name: app\n", "        - Name: app\n"+script)
		for _, text := range []string{text, in(t, text, script, "")} { // in the middle, and not at all
			r, err := ecs.Convert("x.yaml", text, options(t))
			if err != nil {
				t.Fatal(err)
			}
			was, is := container(definition(t, "x.yaml", text), "app"), container(definition(t, "x.yaml", r.Definition), "app")
			if !reflect.DeepEqual(was["entryPoint"], is["entryPoint"]) {
				t.Errorf("%s: was %q, is %q", style, was["entryPoint"], is["entryPoint"])
			}
		}
		first := in(t, stack, "            - Name: STAGE\n              Value: !Ref Stage\n", "            - Name: STAGE\n              Value: "+style+"\n                a\n                # b\n")
		r, err := ecs.Convert("x.yaml", first, options(t))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := environment(container(definition(t, "x.yaml", r.Definition), "app"))["STAGE"], environment(container(definition(t, "x.yaml", first), "app"))["STAGE"]; got != want || !strings.Contains(want.(string), "# b") {
			t.Errorf("%s: was %q, is %q", style, want, got)
		}
		if joined, ok := ecs.Rejoined("x.yaml", first); !ok || joined != first {
			t.Errorf("%s: joined as\n%s", style, joined)
		}
	}
}

func TestAWordEndsAtAComment(t *testing.T) {
	text := in(t, file(t, "stack.yaml"), "[{ContainerPort: 2000, Protocol: udp}]", "[{ContainerPort: 2000, # , of [it]\n            Protocol: udp # }\n            }]")
	text = in(t, text, "Image: !Ref AppImage", "Image: app#1")
	r, err := ecs.Convert("x.yaml", text, options(t))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Definition, "Protocol: udp # }\n            }]") || container(definition(t, "x.yaml", r.Definition), "app")["image"] != "app#1" {
		t.Error(r.Definition)
	}
}
