package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// chart is the data of a picture. Series with the same X values are lines on axes; without X they are bars, one for
// each label.
type chart struct {
	Title  string   `json:"title"`
	X      string   `json:"x,omitempty"`
	Y      string   `json:"y"`
	LogX   bool     `json:"log_x,omitempty"`
	LogY   bool     `json:"log_y,omitempty"`
	Series []series `json:"series"`
}

type series struct {
	Name   string    `json:"name"`
	X      []float64 `json:"x,omitempty"`
	Y      []float64 `json:"y"`
	Labels []string  `json:"labels,omitempty"`
}

var colors = []string{"#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#9c6b4e", "#97bbf5", "#9498a0"}

const width = 760

func (r *results) bySessions() chart {
	c := chart{Title: "What a logout costs, by the number of sessions", X: "sessions", LogX: true, LogY: true,
		Y: "µs of processor, Curfew and its store"}
	for _, name := range []string{"memory", "SQLite", "PostgreSQL", "Redis"} {
		c.Series = append(c.Series, r.line("Curfew, "+name, "Curfew, "+name))
	}
	for _, store := range []string{"SQLite", "PostgreSQL"} {
		s := series{Name: "django-lasuite, " + store}
		for _, o := range r.logouts() {
			if o.Name == "django-lasuite" && o.Store == store {
				s.X, s.Y = append(s.X, float64(o.Sessions)), append(s.Y, o.Median.CPU+o.Median.Engine)
			}
		}
		if len(s.X) > 0 {
			c.Series = append(c.Series, s)
		}
	}
	return c
}

func (r *results) line(name, of string) series {
	s := series{Name: name}
	for _, o := range r.sizes(of, "logout by sid") {
		s.X, s.Y = append(s.X, float64(o.Sessions)), append(s.Y, o.Median.CPU+o.Median.Engine)
	}
	return s
}

func (r *results) rates() chart {
	c := chart{Title: "Logouts a second on one core, 16 connections", Y: "a second"}
	var s series
	bar := func(o *row, name string) {
		if o != nil {
			s.Labels, s.Y = append(s.Labels, name), append(s.Y, o.Median.Rate)
		}
	}
	bar(r.find("floor", "", "logout", 0, 16), "floor: a signature, no store")
	bar(r.find("floor", "Redis", "logout", 0, 16), "floor with a Redis round trip")
	bar(r.find("floor", "PostgreSQL", "logout", 0, 16), "floor with a PostgreSQL transaction")
	bar(r.find("floor", "SQLite", "logout", 0, 16), "floor with an SQLite commit")
	for _, kind := range []string{"memory", "Redis", "PostgreSQL", "SQLite"} {
		bar(r.find("Curfew, "+kind, kind, "logout by sid", 1000, 16), "Curfew, "+kind)
	}
	for _, o := range r.logouts() {
		if !o.Ours {
			name := o.Name + ", " + o.Store
			if o.Sessions > 0 {
				name += ", " + number(float64(o.Sessions)) + " sessions"
			}
			bar(o, name)
		}
	}
	c.Series = []series{s}
	return c
}

func (r *results) refusedChart() chart {
	c := chart{Title: "Ended here, refused there: share of logouts by when the other replica refuses",
		X: "ms after the answer of the logout", Y: "% refused"}
	for _, f := range r.Refused {
		s := series{Name: f.Store}
		for i, late := range f.Late {
			s.X, s.Y = append(s.X, late), append(s.Y, 100*float64(i+1)/float64(len(f.Late)))
		}
		c.Series = append(c.Series, s)
	}
	return c
}

func (c chart) svg() []byte {
	if len(c.Series) == 1 && c.Series[0].X == nil {
		return c.bars()
	}
	return c.lines()
}

func begin(b *strings.Builder, title string, height int) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">
<title>%s</title>
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="16" y="26" font-size="16" font-weight="bold">%[3]s</text>
`, width, height, html.EscapeString(title))
}

func (c chart) bars() []byte {
	var b strings.Builder
	s := c.Series[0]
	const row, left, top = 24, 300, 44
	begin(&b, c.Title, top+row*len(s.Y)+12)
	most := 1.0
	for _, y := range s.Y {
		most = max(most, y)
	}
	for i, y := range s.Y {
		color := "#9498a0"
		if strings.HasPrefix(s.Labels[i], "Curfew") {
			color = colors[0]
		} else if strings.HasPrefix(s.Labels[i], "floor") {
			color = "#d0d3d8"
		}
		at, long := top+row*i, max(1, y/most*(width-left-80))
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, at+14, html.EscapeString(s.Labels[i]))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="16" fill="%s"/>`, left, at+1, long, color)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", left+long+6, at+14, number(y))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// axis maps values to places between two ends.
type axis struct {
	log      bool
	min, max float64
	from, to float64
}

func newAxis(log bool, from, to float64, values ...[]float64) axis {
	a := axis{log: log, min: math.Inf(1), max: math.Inf(-1), from: from, to: to}
	for _, some := range values {
		for _, v := range some {
			a.min, a.max = min(a.min, v), max(a.max, v)
		}
	}
	if math.IsInf(a.min, 1) {
		a.min, a.max = 1, 10
	}
	if log {
		a.min, a.max = math.Pow(10, math.Floor(math.Log10(a.min)+1e-9)), math.Pow(10, math.Ceil(math.Log10(a.max)-1e-9))
	}
	if a.min == a.max {
		a.max++
	}
	return a
}

func (a axis) at(v float64) float64 {
	lo, hi := a.min, a.max
	if a.log {
		lo, hi, v = math.Log10(lo), math.Log10(hi), math.Log10(v)
	}
	return a.from + (v-lo)/(hi-lo)*(a.to-a.from)
}

func (a axis) ticks() (all []float64) {
	if a.log {
		for v := a.min; v <= a.max*1.01; v *= 10 {
			all = append(all, v)
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10((a.max-a.min)/2)))
	for (a.max-a.min)/step > 8 {
		step *= 2
	}
	for v := math.Ceil(a.min/step) * step; v <= a.max+step/1000; v += step {
		all = append(all, v)
	}
	return all
}

func (c chart) lines() []byte {
	var b strings.Builder
	const left, right, top, bottom = 70, 200, 44, 50
	height := 380
	begin(&b, c.Title, height)
	var xs, ys [][]float64
	for _, s := range c.Series {
		xs, ys = append(xs, s.X), append(ys, s.Y)
	}
	x := newAxis(c.LogX, left, width-right, xs...)
	y := newAxis(c.LogY, float64(height-bottom), top, ys...)
	label := func(v float64) string {
		switch {
		case v >= 1e6:
			return fmt.Sprintf("%gM", v/1e6)
		case v >= 1e3:
			return fmt.Sprintf("%gk", v/1e3)
		}
		return fmt.Sprintf("%.4g", v)
	}
	for _, v := range x.ticks() {
		fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x.at(v), top, height-bottom, x.at(v), height-bottom+18, label(v))
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, y.at(v), width-right, left-6, y.at(v)+4, label(v))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`, (left+width-right)/2, height-10,
		html.EscapeString(c.X))
	fmt.Fprintf(&b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n",
		(top+height-bottom)/2, html.EscapeString(c.Y))
	for i, s := range c.Series {
		color := colors[i%len(colors)]
		var points []string
		for j := range s.X {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x.at(s.X[j]), y.at(s.Y[j])))
			if len(s.X) <= 12 {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`, x.at(s.X[j]), y.at(s.Y[j]), color)
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(points, " "), color)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			width-right+14, top+22*i, color, width-right+32, top+22*i+11, html.EscapeString(s.Name))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}
