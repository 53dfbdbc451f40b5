// Package guard has code of an app that panics fail alone: in a goroutine that no request waits for, a panic would end
// the process, and sign everybody out where the sessions are in memory.
package guard

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"golang.org/x/sync/singleflight"
)

// most is how many bytes of what a panic said are kept.
const most = 500

// Recover is to be deferred, by the function that may panic. It logs a panic with its stack, and sets *err to an error
// that says what panicked; err may be nil. No argument of the function is logged, and of what the panic was called with
// only text and errors, cut to some length.
func Recover(log *slog.Logger, what string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	fault := fmt.Errorf("%s panicked: %s", what, said(p))
	log.Error("a panic was caught: what was under way has failed, and everything else goes on",
		"event", "panic", "error", fault, "stack", string(debug.Stack()))
	if err != nil {
		*err = fault
	}
}

func said(p any) string {
	var text string
	switch p := p.(type) {
	case string:
		text = p
	case error:
		text = p.Error()
	default:
		text = fmt.Sprintf("with a value of type %T", p)
	}
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// Group is a [singleflight.Group] whose functions may panic: that one panics again, in a goroutine where nobody can
// recover.
type Group struct{ flights singleflight.Group }

// Result is what a function of a [Group] returned.
type Result = singleflight.Result

// DoChan is that of [singleflight.Group]. A panic becomes the error of all who wait, as [Recover] makes it.
func (g *Group) DoChan(log *slog.Logger, what, key string, do func() (any, error)) <-chan Result {
	return g.flights.DoChan(key, func() (v any, err error) {
		defer Recover(log, what, &err)
		return do()
	})
}
