package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// results is everything that a run has found: bench/results/results.json.
type results struct {
	Mode     string              `json:"mode"`
	When     time.Time           `json:"when"`
	Took     string              `json:"took"`
	Machine  map[string]string   `json:"machine"`
	LoadAt   []string            `json:"load"` // of the machine, before and after: the whole of /proc/loadavg
	Rows     []*row              `json:"rows"`
	Refused  []refusal           `json:"refused"`
	Tried    []trial             `json:"tried"`
	Faults   map[string][]string `json:"faults"`
	Versions map[string]string   `json:"versions"`
}

// row is what one server did in one situation, in all rounds.
type row struct {
	Name     string   `json:"name"`
	Store    string   `json:"store"`
	Sessions int      `json:"sessions"`
	Op       string   `json:"op"`
	Conns    int      `json:"conns"`
	Ours     bool     `json:"ours"`
	Samples  []sample `json:"samples"`
	Median   sample   `json:"median"`
}

// trial is whether a logout ended a session.
type trial struct {
	Name, Store, By string
	Status          int
	Refused         bool
}

// refusal is how long after a logout at one replica another served the session: negative, if it refused it before the
// logout was answered.
type refusal struct {
	Store string    `json:"store"`
	Late  []float64 `json:"late_ms"` // sorted
}

func (r refusal) at(permille int) float64 {
	return r.Late[min(len(r.Late)*permille/1000, len(r.Late)-1)]
}

func newResults(mode string) *results {
	r := &results{Mode: mode, When: time.Now().UTC().Truncate(time.Second), Faults: map[string][]string{},
		Machine:  map[string]string{"cores": fmt.Sprint(runtime.NumCPU())},
		Versions: map[string]string{"Go": runtime.Version()}}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			r.Machine["processor"] = strings.TrimSpace(value)
		}
	}
	first := func(name string, argv ...string) {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if err == nil && line != "" {
			r.Versions[name] = line
		}
	}
	first("kernel", "uname", "-sr")
	first("Redis", "redis-server", "--version")
	first("PostgreSQL", "psql", "--version")
	first("Node.js", "node", "--version")
	first("Apache", "apache2", "-v")
	first("mod_auth_openidc", "dpkg-query", "-W", "-f=${Version}", "libapache2-mod-auth-openidc")
	first("Java", "java", "-version")
	first("express-openid-connect", "node", "-p",
		"require('./peers/express/node_modules/express-openid-connect/package.json').version")
	if found, _ := filepath.Glob("peers/django/pip/django_lasuite-*.dist-info"); len(found) == 1 {
		r.Versions["django-lasuite"] = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "django_lasuite-"),
			".dist-info")
	}
	r.load()
	return r
}

func (r *results) load() {
	text, _ := os.ReadFile("/proc/loadavg")
	r.LoadAt = append(r.LoadAt, strings.TrimSpace(string(text)))
}

func (r *results) add(like row, s sample) {
	i := slices.IndexFunc(r.Rows, func(o *row) bool {
		return o.Name == like.Name && o.Store == like.Store && o.Sessions == like.Sessions && o.Op == like.Op &&
			o.Conns == like.Conns
	})
	if i < 0 {
		i, r.Rows = len(r.Rows), append(r.Rows, &like)
	}
	r.Rows[i].Samples = append(r.Rows[i].Samples, s)
}

func (r *results) fault(name, what string) {
	if !slices.Contains(r.Faults[name], what) {
		r.Faults[name] = append(r.Faults[name], what)
	}
}

func (r *results) tried(name, store, by string, status int, refused bool) {
	r.Tried = append(r.Tried, trial{name, store, by, status, refused})
}

func (r *results) finish(took time.Duration) {
	r.Took = took.Round(time.Second).String()
	r.load()
	for _, row := range r.Rows {
		pick := func(of func(sample) float64) float64 { return median(row.Samples, of) }
		row.Median = sample{Ops: row.Samples[0].Ops, Rate: pick(func(s sample) float64 { return s.Rate }),
			CPU: pick(func(s sample) float64 { return s.CPU }), Engine: pick(func(s sample) float64 { return s.Engine }),
			P50: pick(func(s sample) float64 { return s.P50 }), P99: pick(func(s sample) float64 { return s.P99 })}
		again := 0
		for _, s := range row.Samples {
			again += s.Again
		}
		if again > 0 {
			r.fault(row.Name, fmt.Sprintf("%s, %d sessions, %d connections: %d answers of 503, after which the token was "+
				"sent again", row.Op, row.Sessions, row.Conns, again))
		}
	}
}

func median[T any](all []T, of func(T) float64) float64 {
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = of(v)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

// find returns a row, or nil.
func (r *results) find(name, store, op string, sessions, conns int) *row {
	for _, row := range r.Rows {
		if row.Name == name && row.Store == store && row.Op == op && row.Sessions == sessions && row.Conns == conns {
			return row
		}
	}
	return nil
}

// ratio is the median over the rounds of how the rate of one compares with that of the other, and of how the processor
// time of the other compares with that of one, stores included.
func ratio(of, floor *row) (rate, cpu float64) {
	if of == nil || floor == nil {
		return 0, 0
	}
	n := min(len(of.Samples), len(floor.Samples))
	rounds := make([]int, n)
	for i := range rounds {
		rounds[i] = i
	}
	rate = median(rounds, func(i int) float64 { return of.Samples[i].Rate / floor.Samples[i].Rate })
	cpu = median(rounds, func(i int) float64 {
		s, f := of.Samples[i], floor.Samples[i]
		return (f.CPU + f.Engine) / max(1, s.CPU+s.Engine)
	})
	return rate, cpu
}

// write writes the results, the charts, and the tables of the page.
func (r *results) write(dir, docs string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644)}
	for name, c := range map[string]chart{"logout-by-sessions": r.bySessions(), "rates": r.rates(),
		"refused-there": r.refusedChart()} {
		text, err := json.MarshalIndent(c, "", " ")
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644),
			os.WriteFile(filepath.Join(docs, "performance-"+name+".svg"), c.svg(), 0o644))
	}
	page := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(page)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	fresh, err := r.fill(old)
	return errors.Join(append(errs, err, os.WriteFile(page, fresh, 0o644))...)
}

// fill replaces what stands between the markers of a page.
func (r *results) fill(page []byte) ([]byte, error) {
	for name, table := range map[string]string{"run": r.runTable(), "goals": r.goals(), "rates": r.ratesTable(),
		"sessions": r.sessionsTable(), "many": r.manyTable(), "peers": r.peersTable(), "correct": r.correctTable(),
		"refused": r.refusedTable()} {
		begin, end := []byte("<!-- bench: "+name+" -->\n"), []byte("<!-- end -->")
		at := bytes.Index(page, begin)
		if at < 0 {
			return nil, fmt.Errorf("the page has no marker %q", begin)
		}
		at += len(begin)
		stop := bytes.Index(page[at:], end)
		if stop < 0 {
			return nil, fmt.Errorf("the page does not end %q", begin)
		}
		page = slices.Concat(page[:at], []byte("\n"+table+"\n"), page[at+stop:])
	}
	return page, nil
}

// table renders Markdown.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	b.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}

// number writes a number with commas, a fraction only where it says something.
func number(x float64) string {
	switch {
	case x == 0:
		return ""
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.0f", x)
	}
	text := fmt.Sprintf("%.0f", x)
	if x >= 1000 { // three digits say all that the measurement can
		zeros := len(text) - 3
		text = text[:3] + strings.Repeat("0", zeros)
	}
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func (r *results) runTable() string {
	rows := [][]string{{"when", r.When.Format("2006-01-02 15:04 UTC") + ", " + r.Mode + ", in " + r.Took},
		{"machine", r.Machine["processor"] + ", " + r.Machine["cores"] + " cores"},
		{"load of the machine before and after (1, 5, 15 minutes; running)", strings.Join(r.LoadAt, "; ")}}
	var names []string
	for name := range r.Versions {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rows = append(rows, []string{name, r.Versions[name]})
	}
	return table([]string{"", ""}, rows)
}

// floorOf returns the floor that an operation is compared with.
func floorOf(r *results, o *row) *row {
	store := ""
	if strings.HasPrefix(o.Op, "logout") {
		if o.Store == "PostgreSQL" || o.Store == "Redis" {
			store = o.Store
		}
		return r.find("floor", store, "logout", 0, o.Conns)
	}
	return r.find("floor", "", o.Op, 0, o.Conns)
}

func (r *results) goals() string {
	var rows [][]string
	for _, g := range []struct {
		what, store, op string
		goal            float64
	}{
		{"logout, memory", "memory", "logout by sid", 0.85}, {"logout, Redis", "Redis", "logout by sid", 0.7},
		{"logout, SQLite, durable", "SQLite", "logout by sid", 0.5},
		{"logout, PostgreSQL", "PostgreSQL", "logout by sid", 0.5},
		{"check, cached", "memory", "check", 0.85}, {"proxied request", "memory", "proxied", 1.2},
	} {
		o := r.find("Curfew, "+g.store, g.store, g.op, 1000, 16)
		if o == nil {
			continue
		}
		f := floorOf(r, o)
		rate, cpu := ratio(o, f)
		met := "no"
		if max(rate, cpu) >= g.goal {
			met = "yes"
		}
		cost := func(s sample) string {
			if s.Engine > 0 {
				return number(s.CPU) + " + " + number(s.Engine)
			}
			return number(s.CPU)
		}
		rows = append(rows, []string{g.what, number(f.Median.Rate), number(o.Median.Rate), number(rate), cost(f.Median),
			cost(o.Median), number(cpu), number(g.goal), met})
	}
	if o := r.find("Curfew, memory", "memory", "sign-in", 1000, 16); o != nil {
		met := "no"
		if o.Median.CPU <= 400 {
			met = "yes"
		}
		rows = append(rows, []string{"sign-in, memory", "", number(o.Median.Rate), "", "", number(o.Median.CPU), "",
			"400 µs", met})
	}
	return table([]string{"", "floor, a second", "Curfew, a second", "ratio", "floor, µs of processor",
		"Curfew, µs of processor", "ratio", "goal", "met"}, rows)
}

var ops = []string{"sign-in", "check", "proxied", "logout by sid", "logout by sub", "garbage"}

func (r *results) ratesTable() string {
	var rows [][]string
	for _, kind := range []string{"memory", "SQLite", "PostgreSQL", "Redis"} {
		for _, conns := range []int{16, 64} {
			line := []string{fmt.Sprintf("%s, %d connections", kind, conns)}
			for _, op := range ops {
				cell := ""
				if o := r.find("Curfew, "+kind, kind, op, 1000, conns); o != nil {
					cell = fmt.Sprintf("%s (%s µs, p99 %s ms)", number(o.Median.Rate), number(o.Median.CPU+o.Median.Engine),
						number(o.Median.P99))
				}
				line = append(line, cell)
			}
			rows = append(rows, line)
		}
	}
	for _, f := range []struct{ store, what string }{{"", "floor"}, {"SQLite", "floor with an SQLite commit for each"},
		{"PostgreSQL", "floor with a PostgreSQL transaction"}, {"Redis", "floor with a Redis round trip"}} {
		line := []string{f.what}
		for _, op := range ops {
			cell := ""
			o := r.find("floor", f.store, op, 0, 16)
			if op == "logout by sid" {
				o = r.find("floor", f.store, "logout", 0, 16)
			}
			if o != nil {
				cell = fmt.Sprintf("%s (%s µs)", number(o.Median.Rate), number(o.Median.CPU+o.Median.Engine))
			}
			line = append(line, cell)
		}
		rows = append(rows, line)
	}
	return table(append([]string{"a second"}, ops...), rows)
}

func (r *results) sizes(name, op string) (all []*row) {
	for _, o := range r.Rows {
		if o.Name == name && o.Op == op && o.Conns == 16 && o.Sessions > 0 {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *row) int { return cmp.Compare(a.Sessions, b.Sessions) })
	return all
}

func (r *results) sessionsTable() string {
	var rows [][]string
	for _, kind := range []string{"memory", "SQLite", "PostgreSQL", "Redis"} {
		for _, op := range ops[3:5] {
			all := r.sizes("Curfew, "+kind, op)
			for _, o := range all {
				rate, cpu := ratio(o, all[0])
				rows = append(rows, []string{kind, op, number(float64(o.Sessions)), number(o.Median.Rate),
					number(o.Median.CPU), number(o.Median.Engine), number(1 / rate), number(1 / cpu)})
			}
		}
	}
	return table([]string{"store", "", "sessions", "a second", "µs of Curfew", "µs of its store", "time, as a multiple",
		"processor, as a multiple"}, rows)
}

func (r *results) manyTable() string {
	var rows [][]string
	for _, kind := range []string{"memory", "SQLite", "PostgreSQL", "Redis"} {
		for _, op := range ops[:3] {
			for _, o := range r.sizes("Curfew, "+kind, op) {
				rows = append(rows, []string{kind, op, number(float64(o.Sessions)), number(o.Median.Rate),
					number(o.Median.CPU), number(o.Median.Engine), number(o.Median.P50), number(o.Median.P99)})
			}
		}
	}
	return table([]string{"store", "", "sessions", "a second", "µs of Curfew", "µs of its store", "p50, ms", "p99, ms"},
		rows)
}

// logouts returns the row of the logouts of each peer: by sid if that ends a session there, else by sub.
func (r *results) logouts() (all []*row) {
	for _, o := range r.Rows {
		if o.Conns == 16 && o.Name != "floor" && (o.Op == "logout by sid" || o.Op == "logout by sub" &&
			r.find(o.Name, o.Store, "logout by sid", o.Sessions, 16) == nil) {
			all = append(all, o)
		}
	}
	return all
}

func (r *results) peersTable() string {
	var rows [][]string
	for _, o := range r.logouts() {
		if o.Ours && o.Sessions != 1000 {
			continue
		}
		name := o.Name
		if !o.Ours {
			name += ", " + o.Store
		}
		if o.Sessions > 0 && !o.Ours {
			name += ", " + number(float64(o.Sessions)) + " sessions"
		}
		line := []string{name}
		for _, op := range []string{"sign-in", "check", o.Op} {
			if x := r.find(o.Name, o.Store, op, o.Sessions, 16); x != nil {
				line = append(line, number(x.Median.Rate), number(x.Median.CPU+x.Median.Engine))
			} else {
				line = append(line, "", "")
			}
		}
		rows = append(rows, line)
	}
	return table([]string{"", "sign-ins a second", "µs", "checks a second", "µs", "logouts a second", "µs"}, rows)
}

func (r *results) correctTable() string {
	var rows [][]string
	for _, t := range r.Tried {
		after := "refused"
		if !t.Refused {
			after = "**still alive**"
		}
		rows = append(rows, []string{t.Name, t.Store, t.By, fmt.Sprint(t.Status), after})
	}
	text := table([]string{"", "sessions in", "the token names a", "answer", "the session afterwards"}, rows)
	var names []string
	for name := range r.Faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, what := range r.Faults[name] {
			text += fmt.Sprintf("\n- %s: %s", name, strings.ReplaceAll(what, "\n", " "))
		}
	}
	return text + "\n"
}

func (r *results) refusedTable() string {
	var rows [][]string
	for _, f := range r.Refused {
		line := []string{f.Store, fmt.Sprint(len(f.Late))}
		for _, at := range []int{500, 900, 990, 1000} {
			line = append(line, fmt.Sprintf("%.1f ms", f.at(at)))
		}
		rows = append(rows, line)
	}
	return table([]string{"", "logouts", "p50", "p90", "p99", "worst"}, rows)
}

// The tables and charts are made of a run that nobody sees before it is on the page.
func TestTheResultsBecomeTablesAndCharts(t *testing.T) {
	t.Parallel()
	r := newResults("quick")
	add := func(name, store, op string, sessions, conns int, ours bool) {
		for i := range 3 {
			r.add(row{Name: name, Store: store, Op: op, Sessions: sessions, Conns: conns, Ours: ours},
				sample{Ops: 10, Rate: 12345 + float64(i), CPU: 100, Engine: 23, P50: 1, P99: 2})
			if store == "PostgreSQL" && op == "logout by sub" && sessions == 100_000 && conns == 64 {
				last := r.Rows[len(r.Rows)-1]
				last.Samples[i].Again = i
			}
		}
	}
	for _, conns := range []int{16, 64} {
		for _, store := range []string{"", "Redis", "PostgreSQL", "SQLite"} {
			add("floor", store, "logout", 0, conns, false)
		}
		add("floor", "", "check", 0, conns, false)
		add("floor", "", "proxied", 0, conns, false)
		for _, kind := range []string{"memory", "SQLite", "PostgreSQL", "Redis"} {
			for _, sessions := range []int{1_000, 100_000} {
				for _, op := range ops {
					add("Curfew, "+kind, kind, op, sessions, conns, true)
				}
			}
		}
	}
	add("express-openid-connect", "memory", "logout by sid", 0, 16, false)
	add("django-lasuite", "SQLite", "logout by sub", 10_000, 16, false)
	r.tried("django-lasuite", "SQLite", "sid", 204, false)
	r.fault("Spring Security", "memory: not measured: it is\nnot here")
	r.Refused = []refusal{{Store: "Redis & <co>", Late: []float64{-0.5, 0, 0.25, 7}}}
	r.finish(time.Minute)

	docs, dir := t.TempDir(), t.TempDir()
	page, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docs, "performance.md"), page, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second run replaces what the first wrote
		if err := r.write(dir, docs); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| logout, Redis | 12,300 | 12,300 | 1.00 | 100 + 23 | 100 + 23 | 1.00 | 0.70 | yes |",
		"| django-lasuite | SQLite | sid | 204 | **still alive** |",
		"- Spring Security: memory: not measured: it is not here",
		"- Curfew, PostgreSQL: logout by sub, 100000 sessions, 64 connections: 3 answers of 503, after which the token was",
		"django-lasuite, SQLite, 10,000 sessions", "| Redis & <co> | 4 | 0.2 ms | 7.0 ms | 7.0 ms | 7.0 ms |"} {
		if n := strings.Count(string(text), want); n != 1 {
			t.Errorf("%d times %q on the page", n, want)
		}
	}
	if strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Inf") {
		t.Error("the page has numbers that are none")
	}
	for _, name := range []string{"logout-by-sessions", "rates", "refused-there"} {
		svg, err := os.ReadFile(filepath.Join(docs, "performance-"+name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
			t.Errorf("%s has coordinates that are none", name)
		}
	}
}
