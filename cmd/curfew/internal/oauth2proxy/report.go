package oauth2proxy

import (
	"fmt"
	"io"
	"slices"

	"example.com/curfew/cmd/curfew/internal/terminal"
)

// Item says what became of one setting.
type Item struct {
	Name    string // and where it was set
	Outcome Outcome
	Note    string
}

// Report prints the items, those first that need attention.
func (r *Result) Report(w io.Writer, p terminal.Painter) error {
	status := map[Outcome]string{Missing: "failed", Differs: "warning", NotNeeded: "skipped", Carried: "ok"}
	order := []Outcome{Missing, Differs, NotNeeded, Carried}
	count := map[Outcome]int{}
	items := slices.Clone(r.Items)
	slices.SortStableFunc(items, func(a, b Item) int {
		return slices.Index(order, a.Outcome) - slices.Index(order, b.Outcome)
	})
	last := Outcome("")
	for _, i := range items {
		if count[i.Outcome]++; i.Outcome != last {
			fmt.Fprintf(w, "\n%s\n", p.Paint(status[i.Outcome], string(i.Outcome)))
			last = i.Outcome
		}
		note := terminal.Printable(i.Note)
		if note != "" {
			note = "\n      " + note
		}
		fmt.Fprintf(w, "  %s%s\n", terminal.Printable(i.Name), note)
	}
	_, err := fmt.Fprintf(w, "\n%s: %d carried over, %d not needed, %d differ, %d not there\n",
		terminal.Count(len(items), "setting"), count[Carried], count[NotNeeded], count[Differs], count[Missing])
	return err
}
