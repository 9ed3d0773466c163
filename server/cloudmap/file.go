package cloudmap

import (
	"log/slog"

	"signet.example/proxy"
	"signet.example/server/shared"
)

// row is one answer in the file.
type row struct {
	Mesh      string     `json:"mesh"`
	Node      string     `json:"node"`
	Question  Question   `json:"question"`
	Instances []Instance `json:"instances"`
}

// OpenFile is the last good answers where there is one server, in a file for a restart while
// AWS is away.
func OpenFile(path string, log *slog.Logger) (*shared.File[*Answers], error) {
	return shared.OpenFile(path, shared.Form[*Answers, []row]{
		What: "instances of AWS Cloud Map",
		Read: func(rows []row) *Answers {
			var all *Answers
			for _, r := range rows {
				all = all.with(proxy.Node(r.Mesh, r.Node), &answer{r.Question, listed(r.Instances)})
			}
			return all
		},
		Write: func(a *Answers) []row {
			rows := []row{}
			for node, x := range a.all().All() {
				rows = append(rows, row{node.Mesh, node.Name, x.of, x.instances})
			}
			return rows
		},
		Same: func(a, b *Answers) bool { return a == b },
	}, log)
}
