package check

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
)

// The statuses of a finding.
const (
	OK        = "ok"
	Warning   = "warning"
	Fault     = "fault"
	Unchecked = "not checked" // it could not be checked, or the result says nothing
)

// Finding is the result of one check.
type Finding struct {
	About  string `json:"about"` // "provider main", "this gateway"
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"`
}

// Report collects findings.
type Report struct {
	Findings []Finding

	about string
}

func (r *Report) ok(check, format string, args ...any) {
	r.add(check, OK, fmt.Sprintf(format, args...), "")
}

func (r *Report) unchecked(check, detail, do string) { r.add(check, Unchecked, detail, do) }

func (r *Report) warn(check, detail, do string) { r.add(check, Warning, detail, do) }

func (r *Report) fault(check, detail, do string) { r.add(check, Fault, detail, do) }

func (r *Report) add(check, status, detail, do string) {
	r.Findings = append(r.Findings, Finding{r.about, check, status, oneLine(detail), oneLine(do)})
}

// oneLine returns a text of several lines, as the errors of drivers are, as one.
func oneLine(s string) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(s, func(c rune) bool { return c == '\n' || c == '\r' }) {
		if line = strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}

// Count returns the number of findings with a status.
func (r *Report) Count(status string) (n int) {
	for _, f := range r.Findings {
		if f.Status == status {
			n++
		}
	}
	return n
}

// Run runs all checks, one after the other: first the providers, then this gateway. It changes nothing. An error is one
// of the configuration.
func Run(ctx context.Context, c *config.Config) (*Report, error) {
	// A relying party with this configuration says which URLs to register. It serves nobody, and does not log: that a
	// provider does not answer is a finding.
	providers, err := c.NewProviders()
	if err != nil {
		return nil, err
	}
	rp, err := curfew.New(ctx, c.RelyingParty(nil, nil, slog.New(slog.DiscardHandler), curfew.Observer{}))
	if err != nil {
		return nil, config.Faults{err}
	}
	registrations := rp.Registrations()
	if err := rp.Close(); err != nil {
		return nil, err
	}
	r := new(Report)
	// Each has its own time limit: one that hangs does not affect the next.
	within := func(look func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		look(ctx)
	}
	for i, p := range providers {
		r.about = "provider " + p.Name()
		within(func(ctx context.Context) { checkProvider(ctx, r, p, registrations[i], c.GroupsClaim) })
	}
	r.about = "this gateway"
	within(func(ctx context.Context) { checkStore(ctx, r, c) })
	checkKeyFile(r, c)
	checkAuditFile(r, c)
	within(func(ctx context.Context) { checkSocket(ctx, r, c) })
	checkHosts(r, c)
	checkCertificate(r, c)
	checkPolicy(r, c)
	return r, nil
}
