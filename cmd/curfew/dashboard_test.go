package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Grafana itself is not started. This reads the dashboard by Grafana's own schemas: every field is one that it knows,
// of the right type, and none that it requires is missing; that of panels and queries too.
func TestTheDashboardMeetsTheSchemasOfGrafana(t *testing.T) {
	t.Parallel()
	kinds := cog.NewRuntime()
	kinds.RegisterPanelcfgVariant(timeseries.VariantConfig())
	kinds.RegisterPanelcfgVariant(stat.VariantConfig())
	kinds.RegisterDataqueryVariant(prometheus.VariantConfig())
	text, err := os.ReadFile(filepath.Join(deployDir, "grafana", "curfew.json"))
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 this is the model that every Grafana imports; version 2 needs a recent one
	var read dashboard.Dashboard
	if err := read.UnmarshalJSONStrict(text); err != nil && err.Error() != "" { // no faults are an empty list, not nil
		t.Error(err)
	}
	if err := read.Validate(); err != nil {
		t.Error(err)
	}
	if len(read.Panels) < 15 {
		t.Errorf("%d panels were read", len(read.Panels))
	}
	wrong := strings.Replace(string(text), `"legendFormat"`, `"legendFormt"`, 1)
	if err := read.UnmarshalJSONStrict([]byte(wrong)); err == nil ||
		!strings.Contains(err.Error(), "legendFormt") {
		t.Errorf("a misspelt field is not found: %v", err)
	}
}

// labels are the values of each label of a metric. Where nothing was counted yet, there are names and no values.
type labels map[string][]string

var (
	sampleLine  = regexp.MustCompile(`(?m)^(\w+)\{(.*)\} \S+$`)
	labelPair   = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
	documented  = regexp.MustCompile("(?m)^\\| `(curfew_\\w+)(?:\\{([a-z,]+)\\})?` \\|")
	selector    = regexp.MustCompile(`\b((?:curfew|process|go)_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher     = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping    = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	legendLabel = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}`)
)

// servedLabels returns the labels that metrics are served with or, before something is counted, are documented with.
func servedLabels(t *testing.T, served string) map[string]labels {
	t.Helper()
	docs, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]labels{}
	for _, m := range documented.FindAllStringSubmatch(string(docs), -1) {
		all[m[1]] = labels{}
		for name := range strings.SplitSeq(m[2], ",") {
			if name != "" {
				all[m[1]][name] = nil
			}
		}
	}
	for _, m := range sampleLine.FindAllStringSubmatch(served, -1) {
		name := m[1]
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && all[base] != nil {
				name = base
			}
		}
		if all[name] == nil {
			all[name] = labels{}
		}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if known := all[name]; pair[1] == "le" {
				continue
			} else if _, ok := known[pair[1]]; !ok && strings.HasPrefix(name, "curfew_") {
				t.Errorf("docs/metrics.md does not say that %s has the label %s", name, pair[1])
			}
			all[name][pair[1]] = append(all[name][pair[1]], pair[2])
		}
	}
	return all
}

// labelFaults compares a query, and the labels that are shown beside its results, with what is served.
func labelFaults(expr, shown string, served map[string]labels) (faults []string) {
	known := map[string]bool{"job": true, "instance": true} // which Prometheus adds
	for _, s := range selector.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1) {
		name, has := s[1], served[s[1]]
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && has == nil {
				has, known["le"] = served[base], true
			}
		}
		for label := range has {
			known[label] = true
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			values, ok := has[m[1]]
			if m[1] == "job" || m[1] == "instance" {
				continue
			}
			if !ok {
				faults = append(faults, fmt.Sprintf("%s has no label %s", name, m[1]))
			}
			for value := range strings.SplitSeq(m[3], "|") {
				if len(values) > 0 && !slices.Contains(values, value) {
					faults = append(faults, fmt.Sprintf("%s of %s is never %q, but one of %q", m[1], name, value, values))
				}
			}
		}
	}
	left := maps.Clone(known)
	if groups := grouping.FindAllStringSubmatch(expr, -1); groups != nil {
		left = map[string]bool{}
		for _, g := range groups {
			for label := range strings.SplitSeq(strings.ReplaceAll(g[1], " ", ""), ",") {
				if left[label] = true; !known[label] {
					faults = append(faults, fmt.Sprintf("groups by %s, which no metric of it has", label))
				}
			}
		}
	}
	for _, m := range legendLabel.FindAllStringSubmatch(shown, -1) {
		if !left[m[1]] {
			faults = append(faults, fmt.Sprintf("shows %s, which the result does not have", m[1]))
		}
	}
	return faults
}

func TestAQueryOfALabelThatIsNotServedIsFound(t *testing.T) {
	t.Parallel()
	served := map[string]labels{"curfew_checks_total": {"surface": {"verify", "proxy"}, "result": {"allowed"}},
		"curfew_check_seconds": {"surface": nil}}
	for _, row := range []struct{ expr, shown, want string }{
		{`sum by (surface, le) (rate(curfew_check_seconds_bucket{surface="verify"}[5m]))`, "{{surface}}", ""},
		{`sum by (surface) (curfew_checks_total{surface=~"verify|proxy"})`, "{{surface}}", ""},
		{`curfew_checks_total`, "{{instance}} {{ $labels.result }}", ""},
		{`curfew_checks_total{surfaces="verify"}`, "", "has no label surfaces"},
		{`curfew_checks_total{surface=~"verify|verity"}`, "", `is never "verity"`},
		{`sum by (results) (curfew_checks_total)`, "", "groups by results"},
		{`sum by (result) (curfew_checks_total)`, "{{surface}}", "shows surface"},
		{`curfew_checks_total`, "{{provider}}", "shows provider"},
	} {
		found := strings.Join(labelFaults(row.expr, row.shown, served), "; ")
		if (found == "") != (row.want == "") || !strings.Contains(found, row.want) {
			t.Errorf("%s shown as %q: found %q, want %q", row.expr, row.shown, found, row.want)
		}
	}
}
