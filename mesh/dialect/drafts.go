package dialect

// Drafts collects the objects of all files, before they are resources.
type Drafts struct {
	Options Options

	found Found
}

// NewDrafts is empty.
func NewDrafts(o Options) *Drafts { return &Drafts{Options: o} }

// Found is what all files had, each object checked. It is asked for once, at the end.
func (d *Drafts) Found() *Found { return &d.found }
