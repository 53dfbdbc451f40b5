package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	nobody       = 65532 // user and group of the image, as in distroless images
	mediaConfig  = "application/vnd.oci.image.config.v1+json"
	mediaLayer   = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaImage   = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex   = "application/vnd.oci.image.index.v1+json"
	stateFolder  = "var/lib/curfew"
	configFile   = "/etc/curfew/curfew.yaml"
	certificates = "etc/ssl/certs/ca-certificates.crt"
)

// image is the image for one architecture. Its blobs are in the order in which they are written.
type image struct {
	arch     string
	manifest descriptor
	blobs    []blob
}

type blob struct {
	descriptor
	text []byte
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func newBlob(mediaType string, text []byte) blob {
	return blob{descriptor{MediaType: mediaType, Digest: digest(text), Size: len(text)}, text}
}

func digest(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

// image makes the image of a binary (OCI image specification 1.1). It has no base image: the binary, the certificates
// of public CAs, the names of root and of the user that it runs as, and the licences.
func (r *release) image(binary string, t target) (img image, err error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return img, err
	}
	ours, err := os.ReadFile(filepath.Join(r.source, "LICENSE"))
	if err != nil {
		return img, err
	}
	others, err := os.ReadFile(noticesOf(binary))
	if err != nil {
		return img, err
	}
	var roots bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil { // one that may sign only some certificates cannot be written as a file
			pem.Encode(&roots, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	folder := func(name string, mode int64, owner int) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner,
			ModTime: r.date, Format: tar.FormatUSTAR})
	}
	file := func(name string, mode int64, text []byte) error {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text)),
			ModTime: r.date, Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	user := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\n"+
		"curfew:x:%d:%[1]d:curfew:/%s:/sbin/nologin\n", nobody, stateFolder)
	group := fmt.Sprintf("root:x:0:\ncurfew:x:%d:\n", nobody)
	for _, step := range []func() error{
		func() error { return folder("etc", 0o755, 0) },
		func() error { return folder("etc/curfew", 0o755, 0) },
		func() error { return file("etc/group", 0o644, []byte(group)) },
		func() error { return file("etc/passwd", 0o644, []byte(user)) },
		func() error { return folder("etc/ssl", 0o755, 0) },
		func() error { return folder("etc/ssl/certs", 0o755, 0) },
		func() error { return file(certificates, 0o644, roots.Bytes()) },
		func() error { return folder("usr", 0o755, 0) },
		func() error { return folder("usr/bin", 0o755, 0) },
		func() error { return file("usr/bin/curfew", 0o755, program) },
		func() error { return folder("usr/share", 0o755, 0) },
		func() error { return folder("usr/share/doc", 0o755, 0) },
		func() error { return folder("usr/share/doc/curfew", 0o755, 0) },
		func() error { return file("usr/share/doc/curfew/LICENSE", 0o644, ours) },
		func() error { return file("usr/share/doc/curfew/LICENSES.txt", 0o644, others) },
		func() error { return folder("var", 0o755, 0) },
		func() error { return folder("var/lib", 0o755, 0) },
		func() error { return folder(stateFolder, 0o700, nobody) },
		w.Close,
	} {
		if err := step(); err != nil {
			return img, err
		}
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return img, err
	}
	if err := z.Close(); err != nil {
		return img, err
	}
	created := r.date.Format(time.RFC3339)
	labels := map[string]string{
		"org.opencontainers.image.title": "Curfew", "org.opencontainers.image.version": r.version,
		"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.created": created,
	}
	config, err := json.Marshal(map[string]any{
		"architecture": t.arch, "os": "linux", "created": created,
		"config": map[string]any{
			"User":         fmt.Sprintf("%d:%[1]d", nobody),
			"ExposedPorts": map[string]any{"4180/tcp": struct{}{}, "4181/tcp": struct{}{}},
			"Env":          []string{"PATH=/usr/bin"},
			"Entrypoint":   []string{"/usr/bin/curfew"},
			"Cmd":          []string{"serve", "--config", configFile},
			"Volumes":      map[string]any{"/" + stateFolder: struct{}{}},
			"WorkingDir":   "/" + stateFolder,
			"Labels":       labels, "StopSignal": "SIGTERM",
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{digest(plain.Bytes())}},
		"history": []any{map[string]string{"created": created, "created_by": "curfew-release"}},
	})
	if err != nil {
		return img, err
	}
	layer, settings := newBlob(mediaLayer, packed.Bytes()), newBlob(mediaConfig, config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaImage, "config": settings.descriptor,
		"layers": []descriptor{layer.descriptor}, "annotations": labels,
	})
	if err != nil {
		return img, err
	}
	top := newBlob(mediaImage, manifest)
	img = image{arch: t.arch, manifest: top.descriptor, blobs: []blob{layer, settings, top}}
	img.manifest.Platform = &platform{t.arch, "linux"}
	return img, nil
}

// writeImages writes an archive of an OCI layout with an image for each architecture:
// `skopeo copy oci-archive:FILE …` and `podman load` read it.
func (r *release) writeImages(images []image) error {
	var manifests []descriptor
	var blobs []blob
	for _, img := range images {
		manifests, blobs = append(manifests, img.manifest), append(blobs, img.blobs...)
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": manifests})
	if err != nil {
		return err
	}
	all := newBlob(mediaIndex, index)
	blobs = append(blobs, all)
	all.descriptor.Annotations = map[string]string{"org.opencontainers.image.ref.name": r.version}
	top, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex,
		"manifests": []descriptor{all.descriptor}})
	if err != nil {
		return err
	}
	return r.write("curfew_"+r.version+"_image.tar", func(w io.Writer) error {
		t := tar.NewWriter(w)
		file := func(name string, text []byte) error {
			err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: r.date,
				Format: tar.FormatUSTAR})
			if err == nil {
				_, err = t.Write(text)
			}
			return err
		}
		if err := file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
			return err
		}
		if err := file("index.json", top); err != nil {
			return err
		}
		written := map[string]bool{}
		for _, b := range blobs {
			if written[b.Digest] {
				continue
			}
			written[b.Digest] = true
			if err := file("blobs/sha256/"+b.Digest[len("sha256:"):], b.text); err != nil {
				return err
			}
		}
		return t.Close()
	})
}
