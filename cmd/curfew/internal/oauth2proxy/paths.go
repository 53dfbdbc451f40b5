package oauth2proxy

import (
	"regexp/syntax"
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
	e := &expansion{open: []match{{}}, ok: true}
	e.walk(re, false)
	if !e.ok || !e.begun {
		return nil, false, false
	}
	for _, m := range e.open { // not anchored at the end
		e.done = append(e.done, match{m.path, true})
	}
	for _, m := range e.done {
		if !strings.HasPrefix(m.path, "/") {
			// An empty prefix, as in "^.*", is every path.
			if m.path != "" || !m.prefix {
				return nil, false, false
			}
		}
	}
	return e.done, e.loose, len(e.done) <= maxMatches
}

// expansion is the state of expand. The open matches are those that what follows is added to.
type expansion struct {
	open, done []match
	begun      bool // after ^
	rest       bool // after .*, where only $ may follow
	loose, ok  bool
}

func (e *expansion) fail() { e.ok = false }

func (e *expansion) add(texts ...string) {
	if e.rest || len(e.open)*len(texts) > maxMatches || !e.begun {
		e.fail()
		return
	}
	var next []match
	for _, m := range e.open {
		for _, t := range texts {
			next = append(next, match{m.path + t, false})
		}
	}
	e.open = next
}

// walk adds one part of an expression. Inside is set below an alternative or a repetition, where anchors have another
// meaning than to end the whole.
func (e *expansion) walk(re *syntax.Regexp, inside bool) {
	if !e.ok {
		return
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			e.fail()
			return
		}
		e.add(string(re.Rune))
	case syntax.OpAnyCharNotNL, syntax.OpAnyChar:
		e.loose = true
		e.add(".")
	case syntax.OpCharClass:
		var texts []string
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if texts = append(texts, string(r)); len(texts) > maxMatches {
					e.fail()
					return
				}
			}
		}
		e.add(texts...)
	case syntax.OpBeginText:
		if inside || e.begun {
			e.fail()
		}
		e.begun = true
	case syntax.OpEndText:
		if inside {
			e.fail()
			return
		}
		for _, m := range e.open {
			e.done = append(e.done, match{m.path, e.rest})
		}
		e.open = nil
	case syntax.OpCapture:
		e.walk(re.Sub[0], inside)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			e.walk(sub, inside)
		}
	case syntax.OpQuest:
		e.alternatives(&syntax.Regexp{Op: syntax.OpEmptyMatch}, re.Sub[0])
	case syntax.OpAlternate:
		if !e.begun { // (^/a|^/b), or ^/a|^/b
			e.each(re.Sub)
			return
		}
		e.alternatives(re.Sub...)
	case syntax.OpStar:
		if re.Sub[0].Op != syntax.OpAnyCharNotNL && re.Sub[0].Op != syntax.OpAnyChar || inside {
			e.fail()
			return
		}
		e.rest = true
	default:
		e.fail()
	}
}

// alternatives adds each of several parts to the open matches.
func (e *expansion) alternatives(subs ...*syntax.Regexp) {
	if e.rest {
		e.fail()
		return
	}
	var all []match
	before := e.open
	for _, sub := range subs {
		e.open = before
		e.walk(sub, true)
		all = append(all, e.open...)
	}
	if e.open = all; len(all) > maxMatches {
		e.fail()
	}
}

// each expands alternatives that are each anchored.
func (e *expansion) each(subs []*syntax.Regexp) {
	for _, sub := range subs {
		one := &expansion{open: []match{{}}, ok: true}
		one.walk(sub, false)
		if !one.ok || !one.begun {
			e.fail()
			return
		}
		for _, m := range one.open {
			one.done = append(one.done, match{m.path, true})
		}
		e.done, e.loose = append(e.done, one.done...), e.loose || one.loose
	}
	e.open, e.begun = nil, true
}
