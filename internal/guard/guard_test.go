package guard_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"example.com/curfew/internal/guard"
)

func TestAPanicIsAnErrorAndOneLineOfTheLogWithoutWhatItWasAbout(t *testing.T) {
	t.Parallel()
	claims := map[string]any{"email": "alice@example.com"}
	for name, row := range map[string]struct {
		panics func()
		want   string
	}{
		"a text":           {func() { panic("the app fell over") }, "the hook panicked: the app fell over"},
		"an error":         {func() { panic(errors.New("no row")) }, "the hook panicked: no row"},
		"a claim":          {func() { _ = claims["department"].(string) }, "interface conversion"},
		"all claims":       {func() { panic(claims) }, "with a value of type map[string]interface {}"},
		"nothing":          {func() { panic(nil) }, "panic called with nil argument"},
		"a very long text": {func() { panic(strings.Repeat("x", 10_000)) }, "xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := slog.New(slog.NewTextHandler(&out, nil))
			var g guard.Group
			r := <-g.DoChan(log, "the hook", "key", func() (any, error) { row.panics(); return "done", nil })
			if r.Err == nil || !strings.Contains(r.Err.Error(), row.want) || len(r.Err.Error()) > 600 || r.Val != nil {
				t.Errorf("%v, %v; want %q", r.Val, r.Err, row.want)
			}
			if said := out.String(); strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, "guard_test.go") ||
				strings.Contains(said, "alice@") {
				t.Errorf("the log says %s", said)
			}
			if r := <-g.DoChan(log, "the hook", "key", func() (any, error) { return "done", nil }); r.Val != "done" {
				t.Errorf("the next one: %v", r)
			}
		})
	}
}
