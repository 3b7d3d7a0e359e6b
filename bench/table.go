package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// table is one table of a page.
type table struct {
	title string
	head  []string
	rows  [][]string
	notes string // below it
}

// cell is what a figure takes: itself, and in a column beside it what is aimed
// at where the table has one.
type cell []string

// figure is a figure without an aim.
func figure(format string, f float64) cell { return cell{fmt.Sprintf(format, f)} }

// atLeast is a figure and the least that it is to be; 0 if nothing is aimed at.
func atLeast(format string, f, aim float64) cell { return aimed(format, f, aim, f < aim) }

// atMost is a figure and the most that it is to be.
func atMost(format string, f, aim float64) cell { return aimed(format, f, aim, f > aim) }

func aimed(format string, f, aim float64, missed bool) cell {
	got := fmt.Sprintf(format, f)
	switch want := fmt.Sprintf(format, aim); {
	case aim == 0:
		return cell{got, ""}
	case missed && got != want:
		return cell{"**" + got + "**", want}
	default:
		return cell{got, want}
	}
}

func mebibytes(n int64) cell { return figure("%.0f MiB", float64(n)/(1<<20)) }

// add adds a row.
func (t *table) add(name string, cells ...cell) {
	row := append([]string{name}, slices.Concat(cells...)...)
	if len(row) != len(t.head) {
		panic(fmt.Sprint(t.title, ": a row has other columns: ", row))
	}
	t.rows = append(t.rows, row)
}

// String is the table as a page has it.
func (t table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", t.title)
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	line(slices.Repeat([]string{"---"}, len(t.head)))
	for _, row := range t.rows {
		line(row)
	}
	if t.notes != "" {
		fmt.Fprintf(&b, "\n%s\n", t.notes)
	}
	return b.String()
}

// report is what a run has found.
type report struct {
	intro  string
	tables []table
}

// writeInto puts the tables between the markers of a page.
func (r report) writeInto(page string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := r.replace(string(b))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(text), 0o644)
}

// replace is the page with the tables: all of them, or the one that the first
// marker names.
func (r report) replace(page string) (string, error) {
	const begin, end, close = "<!-- bench", " -->\n", "<!-- /bench -->"
	before, rest, ok := strings.Cut(page, begin)
	title, rest, ok2 := strings.Cut(rest, end)
	_, after, ok3 := strings.Cut(rest, close)
	if !ok || !ok2 || !ok3 {
		return "", fmt.Errorf("no place for the tables")
	}
	var b strings.Builder
	b.WriteString(before + begin + title + end + r.intro)
	written := false
	for _, t := range r.tables {
		if name := strings.TrimSpace(title); name == "" || name == t.title {
			b.WriteString("\n" + t.String())
			written = true
		}
	}
	if !written {
		return "", fmt.Errorf("there is no table%s", title)
	}
	return b.String() + close + after, nil
}

func median(list []figures, of func(figures) float64) float64 {
	values := make([]float64, len(list))
	for i, f := range list {
		values[i] = of(f)
	}
	return middle(values)
}

// ratio is the median of what each round gives: its two sides are measured one
// right after the other, and a machine may be faster or slower in the next.
func ratio(list, beside []figures, of func(figures) float64) float64 {
	values := make([]float64, len(list))
	for i, f := range list {
		values[i] = of(f) / of(beside[i])
	}
	return middle(values)
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
