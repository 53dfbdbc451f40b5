package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// painter colours a word on a terminal, and leaves it alone elsewhere and with NO_COLOR (no-color.org).
type painter bool

func (p *process) painter() painter {
	return painter(isTerminal(p.stdout) && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (p painter) paint(status, text string) string {
	colour := map[string]string{"ok": "32", "warning": "33", "fault": "31", "failed": "31", "skipped": "2"}[status]
	if !p || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// row is one line of a table: what was looked at, what came of it, and more on the lines below.
type row struct {
	status, name, detail, more string
}

// writeRows prints rows in columns: status, name, detail.
func writeRows(w io.Writer, p painter, indent string, rows []row) {
	statusWidth, nameWidth := 0, 0
	for _, r := range rows {
		statusWidth = max(statusWidth, len(r.status))
		nameWidth = max(nameWidth, len(r.name))
	}
	below := indent + strings.Repeat(" ", statusWidth+nameWidth+4)
	for _, r := range rows {
		fmt.Fprintf(w, "%s%s  %-*s  %s\n", indent, p.paint(r.status, fmt.Sprintf("%-*s", statusWidth, r.status)), nameWidth, r.name, printable(r.detail))
		if r.more != "" {
			fmt.Fprintf(w, "%s→ %s\n", below, printable(r.more))
		}
	}
}

// printable keeps what a stranger wrote from steering the terminal: what is not plain to see is shown as its number.
func printable(s string) string {
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
