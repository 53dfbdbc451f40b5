package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"
)

// packages writes a package for Debian and one for RPM systems: the binary, the systemd unit, its configuration, the
// manual pages, and the completions for shells.
// The service is not started: it needs a provider first.
func (r *release) packages(binary string, t target) error {
	unit, err := os.ReadFile(filepath.Join(r.source, "deploy/systemd/curfew.service"))
	if err != nil {
		return err
	}
	// A package may not write to /usr/local.
	moved := filepath.Join(filepath.Dir(binary), "curfew.service")
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/curfew", "/usr/bin/curfew")
	if err := os.WriteFile(moved, []byte(text), 0o644); err != nil {
		return err
	}
	content := func(kind, from, to string, mode fs.FileMode) *files.Content {
		return &files.Content{Type: kind, Source: from, Destination: to,
			FileInfo: &files.ContentFileInfo{Mode: mode, MTime: r.date, Owner: "root", Group: "root"}}
	}
	version, prerelease, _ := strings.Cut(r.version, "-")
	describe := func(zsh string) (*nfpm.Info, error) {
		info := nfpm.WithDefaults(&nfpm.Info{
			Name: "curfew", Arch: t.arch, Platform: "linux", Version: version, Prerelease: prerelease,
			VersionSchema: "semver", Section: "net", Priority: "optional", License: "Apache-2.0", MTime: r.date,
			Maintainer: "The Curfew project <curfew@example.com>",
			Homepage:   "https://example.com/curfew",
			Description: "Session gateway for OpenID Connect, where a logout is a logout\nIt signs people in, guards an app " +
				"with their session, and ends the session as soon\nas the provider says so.",
			Overridables: nfpm.Overridables{
				RPM: nfpm.RPM{BuildHost: "localhost", Group: "Applications/Internet"},
				Contents: files.Contents{
					content("", binary, "/usr/bin/curfew", 0o755),
					content("", moved, "/usr/lib/systemd/system/curfew.service", 0o644),
					content(files.TypeConfigNoReplace, filepath.Join(r.source, "deploy/systemd/curfew.yaml"),
						"/etc/curfew/curfew.yaml", 0o644),
					content("", filepath.Join(r.source, "LICENSE"), "/usr/share/doc/curfew/copyright", 0o644),
					content("", noticesOf(binary), "/usr/share/doc/curfew/LICENSES.txt", 0o644),
					content("", r.texts.shells["bash"], "/usr/share/bash-completion/completions/curfew", 0o644),
					content("", r.texts.shells["fish"], "/usr/share/fish/vendor_completions.d/curfew.fish", 0o644),
					content("", r.texts.shells["zsh"], zsh, 0o644),
				},
			},
		})
		for _, page := range r.texts.pages {
			info.Contents = append(info.Contents, content("", page, "/usr/share/man/man1/"+filepath.Base(page), 0o644))
		}
		return info, nfpm.PrepareForPackager(info, "deb")
	}
	var faults []error
	for kind, p := range map[string]nfpm.Packager{"deb": deb.Default, "rpm": rpm.DefaultRPM} {
		info, err := describe(map[string]string{"deb": "/usr/share/zsh/vendor-completions/_curfew",
			"rpm": "/usr/share/zsh/site-functions/_curfew"}[kind])
		if err != nil {
			return err
		}
		faults = append(faults, r.write("curfew_"+r.version+"_"+t.String()+"."+kind, func(w io.Writer) error {
			return p.Package(info, w)
		}))
	}
	return errors.Join(faults...)
}
