package check

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
)

// What serve could not make or write is a fault before it starts.
func TestAFileThatServeCouldNotMakeIsAFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	if err := errors.Join(os.Mkdir(at("folder"), 0o555), os.Mkdir(at("dark"), 0o700),
		os.WriteFile(at("full.log"), nil, 0o600), os.WriteFile(at("read.log"), nil, 0o444),
		os.WriteFile(at("ring.key"), keyring.NewFile(), 0o600),
		os.WriteFile(at("ring.db.lock"), nil, 0o444), os.Symlink(at("none", "a.log"), at("lost.log")),
		os.Symlink("new.log", at("found.log")), os.Chmod(at("dark"), 0o666), os.Chmod(at("full.log"), 0o666),
		os.Chmod(at("ring.key"), 0), os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stale.sock", "busy.sock", "closed.sock"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "unix", at(name))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if name == "stale.sock" {
			l.Close()
		}
		t.Cleanup(func() { l.Close() })
	}
	if err := errors.Join(os.Chmod(at("stale.sock"), 0o777), os.Chmod(at("busy.sock"), 0o777),
		os.Chmod(at("closed.sock"), 0)); err != nil {
		t.Fatal(err)
	}
	const (
		soon   = " is not there yet; serve makes it, if it runs as this user"
		denied = "this user may not make files in the folder "
	)
	memory, noKey := look{"store", "warning", "in memory", ""}, look{"key file", "ok", "none", ""}
	none, folder := ": the folder "+at("none")+" does not exist", denied+at("folder")+": permission denied"
	for name, row := range map[string]struct {
		settings string
		want     []look // all that is said of what is set, and of the store and the key file
	}{
		"a store and its key file": {"store: sqlite:" + at("a.db"), []look{
			{"store", "ok", at("a.db") + soon, ""}, {"key file", "ok", at("a.key") + soon, ""}}},
		"a store without a folder": {"store: sqlite:" + at("none", "a.db") + "\nkey_file: " + at("a.key"), []look{
			{"store", "fault", at("none", "a.db") + none, "create the folder"},
			{"key file", "ok", at("a.key") + soon, ""}}},
		"a key file without a folder": {"store: sqlite:" + at("a.db") + "\nkey_file: " + at("none", "a.key"), []look{
			{"store", "ok", at("a.db") + soon, ""},
			{"key file", "fault", at("none", "a.key") + none, "create the folder"}}},
		"a folder that may not be written": {"store: sqlite:" + at("folder", "a.db"), []look{
			{"store", "fault", at("folder", "a.db") + ": " + folder, "let the user"},
			{"key file", "fault", at("folder", "a.key") + ": " + folder, "let the user"}}},
		"a folder that may not be searched": {"store: sqlite:" + at("dark", "a.db"), []look{
			{"store", "fault", at("dark", "a.db") + ": permission denied", ""},
			{"key file", "fault", "permission denied", "serve would not start"}}},
		"a lock that may not be written": {"store: sqlite:" + at("ring.db") + "\nkey_file: " + at("a.key"), []look{
			{"store", "fault", at("ring.db.lock") + ": this user may not write it: permission denied", "let the user"},
			{"key file", "ok", at("a.key") + soon, ""}}},
		"a key file that may not be read": {"key_file: " + at("ring.key"),
			[]look{memory, {"key file", "fault", "permission denied", "serve would not start"}}},
		"a key file that is a link to nothing": {"key_file: " + at("found.log"),
			[]look{memory, {"key file", "fault", "no such file", "serve would not start"}}},
		"an audit file": {"audit_file: " + at("a.log"),
			[]look{memory, noKey, {"audit_file", "ok", at("a.log") + soon, ""}}},
		"an audit file that is there": {"audit_file: " + at("full.log"),
			[]look{memory, noKey, {"audit_file", "ok", at("full.log") + " can be written", ""}}},
		"an audit file behind a link": {"audit_file: " + at("found.log"),
			[]look{memory, noKey, {"audit_file", "ok", at("found.log") + soon, ""}}},
		"an audit file behind a link to nowhere": {"audit_file: " + at("lost.log"),
			[]look{memory, noKey, {"audit_file", "fault", at("lost.log") + none, "create the folder"}}},
		"an audit file without a folder": {"audit_file: " + at("none", "a.log"),
			[]look{memory, noKey, {"audit_file", "fault", at("none", "a.log") + none, "create the folder"}}},
		"an audit file in a file": {"audit_file: " + at("full.log", "a.log"),
			[]look{memory, noKey, {"audit_file", "fault", at("full.log", "a.log") + ": not a directory", ""}}},
		"an audit file that is a folder": {"audit_file: " + dir,
			[]look{memory, noKey, {"audit_file", "fault", dir + ": it is a folder", ""}}},
		"an audit file in a folder that may not be written": {"audit_file: " + at("folder", "a.log"),
			[]look{memory, noKey, {"audit_file", "fault", at("folder", "a.log") + ": " + folder, "let the user"}}},
		"an audit file that may not be written": {"audit_file: " + at("read.log"), []look{memory, noKey,
			{"audit_file", "fault", at("read.log") + ": this user may not write it: permission denied", "let the user"}}},
		"an audit record at stdout": {"audit_file: stdout", []look{memory, noKey}},
		"a socket": {"listen: unix:" + at("a.sock"),
			[]look{memory, noKey, {"listen", "ok", at("a.sock") + soon, ""}}},
		"a socket without a folder": {"listen: unix:" + at("none", "a.sock"),
			[]look{memory, noKey, {"listen", "fault", at("none", "a.sock") + none, "create the folder"}}},
		"a socket in a folder that may not be written": {"listen: unix:" + at("folder", "a.sock"),
			[]look{memory, noKey, {"listen", "fault", at("folder", "a.sock") + ": " + folder, "let the user"}}},
		"a socket with too long a path": {"listen: unix:" + at(strings.Repeat("x", 108)),
			[]look{memory, noKey, {"listen", "fault", "bytes; the path of a socket has 107 at most", "shorter"}}},
		"a file in place of a socket": {"listen: unix:" + at("full.log"),
			[]look{memory, noKey, {"listen", "fault", at("full.log") + ": there is a file", "remove it"}}},
		"a socket that a crash left": {"listen: unix:" + at("stale.sock"),
			[]look{memory, noKey, {"listen", "ok", "nobody listens at the socket " + at("stale.sock"), ""}}},
		"a socket in use": {"listen: unix:" + at("busy.sock"),
			[]look{memory, noKey, {"listen", "not checked", "a program listens at " + at("busy.sock"), "stop that"}}},
		"a socket of another user": {"listen: unix:" + at("closed.sock"),
			[]look{memory, noKey, {"listen", "not checked", "permission denied", "see that no other program"}}},
		"an address": {"listen: 127.0.0.1:4180", []look{memory, noKey}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "curfew.yaml")
			common := "url: http://127.0.0.1:4180\nproviders: [{issuer: 'http://127.0.0.1:1', client_id: app}]\n"
			if !strings.HasPrefix(row.settings, "store:") {
				common += "store: 'memory:'\n"
			}
			if err := os.WriteFile(file, []byte(common+row.settings+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(map[string]string{"config": file}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var r *Report
			rig.AsNobody(t, func() { r, err = Run(context.Background(), c) })
			if err != nil {
				t.Fatal(err)
			}
			said := slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.About != "this gateway" })
			if !slices.EqualFunc(row.want, said, look.fits) {
				t.Errorf("got %+v, want %+v", said, row.want)
			}
		})
	}
}
