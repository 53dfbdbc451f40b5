package terminal

import (
	"errors"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestProgressIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name        string
		bar, colour bool
		want        string
	}{
		{"a terminal", true, false, "" +
			"\r\x1b[Kcopying       [===============               ]  50 %  1000 sessions, 500/s, 2s left" +
			"\r\x1b[Kcopying       [==============================] 100 %  2000 sessions, 182/s\n" +
			"\r\x1b[Klooking again [==============================] 100 %  2000 sessions\n"},
		{"a terminal in colour", true, true, "" +
			"\r\x1b[Kcopying       [\x1b[32m===============\x1b[0m               ]  50 %  1000 sessions, 500/s, 2s " +
			"left" +
			"\r\x1b[Kcopying       [\x1b[32m==============================\x1b[0m] 100 %  2000 sessions, 182/s\n" +
			"\r\x1b[Klooking again [\x1b[32m==============================\x1b[0m] 100 %  2000 sessions\n"},
		{"a file", false, false, "copying: 100 %  2000 sessions, 182/s\n"},
	} {
		var out strings.Builder
		now := time.Unix(0, 0)
		g := &Progress{w: &out, bar: row.bar, painter: Painter(row.colour), now: func() time.Time { return now }}
		g.Show("copying", 0, 0)
		now = now.Add(2 * time.Second)
		g.Show("copying", 0.5, 1000)
		now = now.Add(10 * time.Millisecond)
		g.Show("copying", 0.6, 1200) // too soon after the last
		now = now.Add(9 * time.Second)
		g.Show("copying", 1, 2000)
		g.Show("looking again", 1, 2000)
		g.End()
		g.End()
		if out.String() != row.want {
			t.Errorf("%s:\n%q\nwant\n%q", row.name, out.String(), row.want)
		}
	}
}

func TestATerminalHasABarAndColours(t *testing.T) {
	t.Parallel()
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil || !Is(tty) {
		if os.Getenv("CI") == "true" && runtime.GOOS == "linux" {
			t.Fatalf("/dev/ptmx is no terminal: %v", err)
		}
		t.Skipf("NOT TESTED: /dev/ptmx is no terminal: %v", err)
	}
	defer tty.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, row := range []struct {
		name        string
		w           io.Writer
		environ     map[string]string
		bar, colour bool
	}{
		{"a terminal", tty, map[string]string{"TERM": "xterm"}, true, true},
		{"a terminal, and NO_COLOR", tty, map[string]string{"NO_COLOR": "1"}, true, false},
		{"a dumb terminal", tty, map[string]string{"TERM": "dumb"}, false, false},
		{"a device that is no terminal", null, map[string]string{"TERM": "xterm"}, false, false},
		{"no file", new(strings.Builder), map[string]string{"TERM": "xterm"}, false, false},
	} {
		g := NewProgress(row.w, func(name string) string { return row.environ[name] })
		if g.bar != row.bar || bool(g.painter) != row.colour {
			t.Errorf("%s: a bar %t, colours %t", row.name, g.bar, g.painter)
		}
	}
}

func TestRowsStandInColumnsWithAndWithoutColours(t *testing.T) {
	t.Parallel()
	rows := []Row{{"ok", "store", "sqlite:x", ""}, {"not checked", "URL", "a\x1bb", "try"}}
	var plain, painted strings.Builder
	if err := errors.Join(WriteRows(&plain, false, "  ", rows), WriteRows(&painted, true, "  ", rows)); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"  ok           store  sqlite:x\n" +
		"  not checked  URL    a\\u001bb\n" +
		"                      → try\n"
	if plain.String() != want {
		t.Errorf("without colours:\n%s\nwant\n%s", &plain, want)
	}
	if got := regexp.MustCompile("\x1b\\[[0-9]+m").ReplaceAllString(painted.String(), ""); got != want {
		t.Errorf("with colours:\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(painted.String(), "\x1b[32mok\x1b[0m") {
		t.Errorf("no colour: %q", &painted)
	}
}
