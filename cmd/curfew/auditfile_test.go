package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A line that a full disk has cut short costs no other event.
func TestAnAuditFileThatEndsWithinALineGoesOnWithANewOne(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, before, want string }{
		{"new", "", "{2}\n{3}\n"},
		{"whole", "{1}\n", "{1}\n{2}\n{3}\n"},
		{"torn", "{1}\n{1", "{1}\n{1\n{2}\n{3}\n"},
	} {
		name := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(name, []byte(row.before), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := openAudit(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"{2}\n", "{3}\n"} {
			if n, err := file.Write([]byte(line)); n != len(line) || err != nil {
				t.Errorf("%s: wrote %d: %v", row.name, n, err)
			}
		}
		file.Close()
		if got, err := os.ReadFile(name); string(got) != row.want {
			t.Errorf("%s: %v: got %q, want %q", row.name, err, got, row.want)
		}
	}
}

// fullDisk has room for so many bytes.
type fullDisk struct {
	bytes.Buffer
	room int
}

var errFull = errors.New("no space left on device")

func (f *fullDisk) Write(p []byte) (int, error) {
	n := min(f.room, len(p))
	f.room -= n
	f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestAnAuditLineAfterOneCutShortIsWhole(t *testing.T) {
	t.Parallel()
	var a auditFile
	disk := &fullDisk{room: 6}
	for i, row := range []struct {
		line string
		room int // that there is then
		n    int
		err  error
		want string
	}{
		{"{1}\n", 2, 4, nil, "{1}\n"},
		{"{2}\n", 0, 2, errFull, "{1}\n{2"},
		{"{3}\n", 1, 0, errFull, "{1}\n{2"},
		{"{4}\n", 9, 0, errFull, "{1}\n{2\n"}, // only the end of the line before
		{"{5}\n", 5, 4, nil, "{1}\n{2\n{5}\n"},
		{"{6}\n", 1, 4, nil, "{1}\n{2\n{5}\n{6}\n"},
	} {
		n, err := a.writeLine(disk, []byte(row.line))
		if n != row.n || !errors.Is(err, row.err) || disk.String() != row.want {
			t.Errorf("%d: wrote %d: %v; the file has %q, want %q", i, n, err, &disk.Buffer, row.want)
		}
		disk.room = row.room
	}
}
