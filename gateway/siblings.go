package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// Gap is a path that an app may serve as the same page as one that a rule covers, and that has weaker conditions.
type Gap struct {
	Rule int    // the number of the rule, from 1
	Path string // the path of the rule
	Open string // the other path
	By   int    // the number of the rule that covers it; 0: none
}

// Gaps returns, for each rule with conditions, similar paths that an app may treat as the same: with another extension,
// a slash, something below, or in another case. A policy cannot know which of them the app treats so.
func (p *Policy) Gaps() (gaps []Gap) {
	methods := []string{http.MethodGet, http.MethodPost}
	for i := range p.rules {
		methods = append(methods, p.rules[i].Methods...)
	}
	for i := range p.rules {
		r := &p.rules[i]
		if r.Public || r.base == "" {
			continue
		}
		for _, path := range r.siblings() {
			for _, m := range methods {
				if p.firstMatch(r.Host, m, r.base) != r { // an earlier rule covers the path itself
					continue
				}
				by := p.firstMatch(r.Host, m, path)
				if by == nil && (p.denyRest || !r.requiresMore()) || by != nil && by.requiresAll(r) {
					continue
				}
				g := Gap{Rule: r.number, Path: r.Path, Open: path}
				if by != nil {
					g.By = by.number
				}
				gaps = append(gaps, g)
				break
			}
		}
	}
	return gaps
}

// firstMatch returns the rule for a plain path, or nil. Without a host only rules for any host count.
func (p *Policy) firstMatch(host, method, path string) *rule {
	for i := range p.rules {
		if p.rules[i].covers(host, method, path) {
			return &p.rules[i]
		}
	}
	return nil
}

// siblings returns other paths that an app may map to the page of the rule.
func (r *rule) siblings() []string {
	all := []string{r.base, r.base + "/", r.base + "/x"}
	at := strings.LastIndex(r.base, "/") + 1
	if name := r.base[at:]; name != "" {
		if !strings.Contains(name, ".") { // a name with an extension gets no other
			all = append(all, r.base+".json", r.base+".html", r.base+".")
		}
		other := strings.ToUpper(name[:1]) + name[1:]
		if other == name {
			other = strings.ToLower(name)
		}
		all = append(all, r.base[:at]+other, strings.ToUpper(r.base))
	}
	return all
}

// requiresMore reports whether the rule requires more than a sign-in.
func (r *rule) requiresMore() bool {
	return len(r.Groups)+len(r.EmailDomains)+len(r.Claims)+len(r.Scopes)+len(r.ACR)+len(r.AMR) > 0 || r.MaxAge > 0
}

// requiresAll reports whether a user who meets r also meets other.
func (r *rule) requiresAll(other *rule) bool {
	if r.Public || !within(r.Groups, other.Groups) || !within(r.EmailDomains, other.EmailDomains) ||
		!within(r.Scopes, other.Scopes) || !within(r.ACR, other.ACR) || !within(r.AMR, other.AMR) ||
		other.MaxAge > 0 && (r.MaxAge == 0 || r.MaxAge > other.MaxAge) {
		return false
	}
	for name, values := range other.Claims {
		if !within(r.Claims[name], values) {
			return false
		}
	}
	return true
}

// within reports whether meeting one of some implies meeting one of all; an empty all requires nothing.
func within(some, all []string) bool {
	if len(all) == 0 {
		return true
	}
	return len(some) > 0 && !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
