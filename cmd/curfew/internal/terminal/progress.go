package terminal

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	barWidth  = 30
	barEvery  = 100 * time.Millisecond
	lineEvery = 10 * time.Second
)

// Progress shows the progress of a long command: a bar on a terminal, and a line now and then elsewhere.
type Progress struct {
	w       io.Writer
	bar     bool
	painter Painter
	now     func() time.Time

	pass  string
	began time.Time // when the pass began
	shown time.Time
	drawn bool // the last line is a bar
}

// NewProgress returns a Progress that writes to w. Getenv returns the value of an environment variable, or "".
func NewProgress(w io.Writer, getenv func(string) string) *Progress {
	bar := Is(w) && getenv("TERM") != "dumb"
	return &Progress{w: w, bar: bar, painter: NewPainter(w, getenv), now: time.Now}
}

// Show shows how much of a pass is done, from 0 to 1, and how many sessions that is.
func (g *Progress) Show(pass string, done float64, sessions int) {
	now := g.now()
	if pass != g.pass {
		g.End()
		g.pass, g.began, g.shown = pass, now, now
	}
	every := lineEvery
	if g.bar {
		every = barEvery
	}
	if now.Sub(g.shown) < every && !(g.bar && done == 1) {
		return
	}
	g.shown = now
	text := fmt.Sprintf("%3.0f %%  %s", 100*done, Count(sessions, "session"))
	if spent := now.Sub(g.began).Seconds(); spent > 0 && done > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(sessions)/spent)
		if left := time.Duration(spent * (1/done - 1) * float64(time.Second)).Round(time.Second); left > 0 {
			text += fmt.Sprintf(", %s left", left)
		}
	}
	if !g.bar {
		fmt.Fprintf(g.w, "%s: %s\n", pass, strings.TrimSpace(text))
		return
	}
	full := int(done * barWidth)
	const restart = "\r\x1b[K" // go to the beginning of the line, and erase it
	fmt.Fprintf(g.w, restart+"%-13s [%s%s] %s", pass,
		g.painter.Paint("ok", strings.Repeat("=", full)), strings.Repeat(" ", barWidth-full), text)
	g.drawn = true
}

// End ends the line of the bar.
func (g *Progress) End() {
	if g.drawn {
		fmt.Fprintln(g.w)
	}
	g.drawn = false
}
