package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"os"
	"path"
	"path/filepath"
)

// entry is a file of an archive.
type entry struct {
	name, from string
	mode       int64
}

// archive writes the binary with licences, documentation, manual pages and completions: a .zip for Windows, a .tar.gz
// for the others.
func (r *release) archive(binary string, t target) error {
	folder := "curfew_" + r.version + "_" + t.String()
	entries := []entry{{path.Join(folder, filepath.Base(binary)), binary, 0o755}}
	entries = append(entries, entry{path.Join(folder, "LICENSES.txt"), noticesOf(binary), 0o644})
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		entries = append(entries, entry{path.Join(folder, name), filepath.Join(r.source, name), 0o644})
	}
	if t.os != "windows" {
		for _, page := range r.texts.pages {
			entries = append(entries, entry{path.Join(folder, "man", filepath.Base(page)), page, 0o644})
		}
		for _, shell := range []string{"bash", "fish", "zsh"} {
			entries = append(entries, entry{path.Join(folder, "completions", "curfew."+shell), r.texts.shells[shell], 0o644})
		}
	}
	if t.os == "windows" {
		return r.write(folder+".zip", func(w io.Writer) error { return r.zip(w, entries) })
	}
	return r.write(folder+".tar.gz", func(w io.Writer) error { return r.tarGz(w, entries) })
}

func (r *release) tarGz(w io.Writer, entries []entry) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, e := range entries {
		text, err := os.ReadFile(e.from)
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(text)), ModTime: r.date,
			Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := t.Write(text); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (r *release) zip(w io.Writer, entries []entry) error {
	z := zip.NewWriter(w)
	for _, e := range entries {
		text, err := os.ReadFile(e.from)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: r.date}
		h.SetMode(os.FileMode(e.mode))
		f, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(text); err != nil {
			return err
		}
	}
	return z.Close()
}
