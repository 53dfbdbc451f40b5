package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress shows how far a long command has come: a bar on a terminal, and a line now and then elsewhere.
type progress struct {
	w     io.Writer
	bar   bool
	paint painter
	now   func() time.Time

	what  string // the pass, and when it began
	began time.Time
	shown time.Time
	drawn bool // a bar stands on the last line
}

const (
	barWidth  = 30
	barEvery  = 100 * time.Millisecond
	lineEvery = 10 * time.Second
)

func (p *process) progress() *progress {
	bar := isTerminal(p.stderr) && p.getenv("TERM") != "dumb"
	return &progress{w: p.stderr, bar: bar, paint: painter(bar && p.getenv("NO_COLOR") == ""), now: time.Now}
}

// show says how much of a pass is done, from 0 to 1, and how many sessions that were.
func (g *progress) show(what string, done float64, sessions int) {
	now := g.now()
	if what != g.what {
		g.end()
		g.what, g.began, g.shown = what, now, now
	}
	every := lineEvery
	if g.bar {
		every = barEvery
	}
	if now.Sub(g.shown) < every && !(g.bar && done == 1) {
		return
	}
	g.shown = now
	text := fmt.Sprintf("%3.0f %%  %s", 100*done, count(sessions, "session"))
	if spent := now.Sub(g.began).Seconds(); spent > 0 && done > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(sessions)/spent)
		if left := time.Duration(spent * (1/done - 1) * float64(time.Second)).Round(time.Second); left > 0 {
			text += fmt.Sprintf(", %s left", left)
		}
	}
	if !g.bar {
		fmt.Fprintf(g.w, "%s: %s\n", what, strings.TrimSpace(text))
		return
	}
	full := int(done * barWidth)
	// To the beginning of the line, and away with what stands there.
	fmt.Fprintf(g.w, "\r\x1b[K%-13s [%s%s] %s", what, g.paint.paint("ok", strings.Repeat("=", full)), strings.Repeat(" ", barWidth-full), text)
	g.drawn = true
}

// end leaves the bar where it is; what is printed next begins a line.
func (g *progress) end() {
	if g.drawn {
		fmt.Fprintln(g.w)
	}
	g.drawn = false
}
