package oauth2proxy

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// match is a path that a regular expression accepts: exactly, or as the beginning of a path.
type match struct {
	path   string
	prefix bool
}

const maxMatches = 64

// expand returns the paths that a regular expression stands for, or false if they cannot be listed. loose reports that
// a dot was taken as a dot, although in the expression it stands for any character.
func expand(expression string) (matches []match, loose, ok bool) {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, false, false
	}
	e := &expansion{ok: true}
	for _, b := range e.walk(re, []branch{{}}) {
		m := match{b.path, b.rest || !b.ended}
		// An empty prefix, as in "^.*", is every path.
		if !b.begun || !strings.HasPrefix(m.path, "/") && m != (match{"", true}) {
			return nil, false, false
		}
		matches = append(matches, m)
	}
	return matches, e.loose, e.ok
}

// branch is one way through an expression: each alternative begins one, and what follows is added to all.
type branch struct {
	path  string
	begun bool // after ^
	rest  bool // after .*, where only $ may follow
	ended bool // after $, where nothing else may follow
}

// expansion is the state of expand.
type expansion struct{ loose, ok bool }

// walk adds one part of an expression to branches. Whatever it cannot add exactly, but for a dot, fails: a branch is
// never wider than the expression.
func (e *expansion) walk(re *syntax.Regexp, from []branch) (to []branch) {
	if !e.ok {
		return nil
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		to = from
	case syntax.OpLiteral:
		e.ok = re.Flags&syntax.FoldCase == 0
		to = e.add(from, string(re.Rune))
	case syntax.OpAnyCharNotNL, syntax.OpAnyChar:
		e.loose = true
		to = e.add(from, ".")
	case syntax.OpCharClass:
		var texts []string
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1] && len(texts) <= maxMatches; r++ {
				texts = append(texts, string(r))
			}
		}
		to = e.add(from, texts...)
	case syntax.OpBeginText:
		to = e.each(from, func(b *branch) bool {
			b.begun = true
			return *b == branch{begun: true}
		})
	case syntax.OpEndText:
		to = e.each(from, func(b *branch) bool {
			b.ended = true
			return b.begun
		})
	case syntax.OpStar:
		to = e.each(from, func(b *branch) bool {
			b.rest = true
			return b.begun && !b.ended && (re.Sub[0].Op == syntax.OpAnyCharNotNL || re.Sub[0].Op == syntax.OpAnyChar)
		})
	case syntax.OpCapture, syntax.OpConcat:
		to = from
		for _, sub := range re.Sub {
			to = e.walk(sub, to)
		}
	case syntax.OpQuest:
		to = slices.Concat(from, e.walk(re.Sub[0], from))
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			to = append(to, e.walk(sub, from)...)
		}
	default:
		e.ok = false
	}
	e.ok = e.ok && len(to) <= maxMatches
	return to
}

// add adds each of several texts to each branch.
func (e *expansion) add(from []branch, texts ...string) (to []branch) {
	e.ok = e.ok && len(from)*len(texts) <= maxMatches
	for _, text := range texts {
		to = append(to, e.each(from, func(b *branch) bool {
			b.path += text
			return b.begun && !b.rest && !b.ended
		})...)
	}
	return to
}

// each takes a step with each branch. A step that cannot be taken exactly returns false.
func (e *expansion) each(from []branch, step func(*branch) bool) []branch {
	to := slices.Clone(from)
	for i := range to {
		e.ok = step(&to[i]) && e.ok
	}
	return to
}
