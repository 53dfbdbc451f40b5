package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	"golang.org/x/term"
)

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Painter colors words on a terminal. It does nothing elsewhere, and with NO_COLOR (no-color.org).
type Painter bool

// NewPainter returns the Painter for w. Getenv returns the value of an environment variable, or "".
func NewPainter(w io.Writer, getenv func(string) string) Painter {
	return Painter(Is(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb")
}

// Paint colors a text by a status: ok, warning, fault, failed or skipped. Any other status has the normal color.
func (p Painter) Paint(status, text string) string {
	if !p {
		return text
	}
	// All have two digits, so that the sequences are equally long: tabwriter counts them as letters.
	colour := map[string]string{"ok": "32", "warning": "33", "fault": "31", "failed": "31", "skipped": "02"}[status]
	if colour == "" {
		colour = "39"
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// Row is one line of a table: a status, what was checked, the result, and more on a line below.
type Row struct{ Status, Name, Detail, More string }

// WriteRows prints rows in three columns: status in its color, name and detail.
func WriteRows(w io.Writer, p Painter, indent string, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(t, "%s%s\t%s\t%s\n", indent, p.Paint(r.Status, r.Status), r.Name, Printable(r.Detail))
		if r.More != "" {
			fmt.Fprintf(t, "%s%s\t\t→ %s\n", indent, p.Paint("", ""), Printable(r.More))
		}
	}
	return t.Flush()
}

// Printable prevents text from others from controlling the terminal: an unprintable character is shown as its number.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// Count returns a number with a noun, in the plural if needed: "1 session", "2 sessions".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
