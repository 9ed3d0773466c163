package readonly

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// sums become the series of one proxy. They are for one goroutine at a time.
type sums struct {
	// last has Envoy's own counters as they were, and total ours. Those of a cluster that is taken away,
	// and of an Envoy that has ended, stay in the sum: a counter that falls is one that began anew.
	last, total map[string]float64
}

func newSums() *sums { return &sums{total: map[string]float64{}} }

// page is what Envoy's page of statistics becomes.
func (s *sums) page(envoys []byte) []byte {
	now := map[string]float64{}
	values := map[string]float64{} // of gauges
	for text := range bytes.Lines(envoys) {
		l, ok := parseLine(string(text))
		if !ok {
			continue
		}
		series, kind := l.series()
		switch {
		case series == "":
		case kind == gauge:
			values[series] += l.value
		default:
			now[l.source] = l.value
			before := s.last[l.source]
			if l.value < before { // it began anew
				before = 0
			}
			s.total[series] += l.value - before
		}
	}
	s.last = now
	var out bytes.Buffer
	for _, f := range families {
		out.WriteString("# HELP " + f.metric() + " " + f.help + "\n# TYPE " + f.metric() + " " + f.kind + "\n")
		from := s.total
		if f.kind == gauge {
			from = values
		}
		for _, series := range f.series() {
			out.WriteString(series + " " + strconv.FormatFloat(from[series], 'f', -1, 64) + "\n")
		}
	}
	return out.Bytes()
}

// line is one of Envoy's page.
type line struct {
	source       string // name and labels
	name, labels string
	value        float64
}

func parseLine(text string) (line, bool) {
	source, number, _ := cutLast(strings.TrimSpace(text), " ")
	name, labels, ok := strings.Cut(source, "{")
	value, err := strconv.ParseFloat(number, 64)
	return line{source, name, labels, value}, ok && err == nil && !strings.HasPrefix(text, "#")
}

func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

// label is the value of one, "" where there is none. Quotes inside of values are escaped: what looks
// like a label is one.
func (l line) label(name string) string {
	rest := l.labels
	if !strings.HasPrefix(rest, name+`="`) {
		_, rest, _ = strings.Cut(rest, ","+name+`="`)
	} else {
		rest = strings.TrimPrefix(rest, name+`="`)
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// series is the one that a line is counted in, "" where it is in none.
func (l line) series() (series, kind string) {
	for _, f := range families {
		of, ok := f.partOf(l.name)
		if !ok {
			continue
		}
		var pairs []string
		if f.of.label != "" {
			i := slices.IndexFunc(ways, func(way string) bool { return strings.HasPrefix(l.label(f.of.label), f.of.begin+way) })
			if i < 0 {
				return "", ""
			}
			pairs = []string{f.of.label, ways[i]}
		}
		switch {
		case of == "_bucket":
			pairs = append(pairs, "le", l.label("le"))
		case f.classes():
			pairs = append([]string{classLabel, l.label(classLabel)}, pairs...)
		}
		return f.metric() + of + labels(pairs), f.kind
	}
	return "", ""
}

// partOf reports whether a metric of Envoy's is of the family: between the scope and the name it
// may have more, as of a proxy with several listeners. of is the part of a histogram.
func (f family) partOf(metric string) (of string, ok bool) {
	if !strings.HasPrefix(metric, f.of.metrics()) {
		return "", false
	}
	if f.kind != histogram {
		return "", strings.HasSuffix(metric, "_"+f.name)
	}
	for _, of := range []string{"_bucket", "_sum", "_count"} {
		if strings.HasSuffix(metric, "_"+f.name+of) {
			return of, true
		}
	}
	return "", false
}
