package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// The parts of SPDX 2.3 that are used (https://spdx.github.io/spdx-spec/v2.3/).
type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	License       string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Created       spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"name"`
	Version   string         `json:"versionInfo"`
	Location  string         `json:"downloadLocation"`
	Analyzed  bool           `json:"filesAnalyzed"`
	Concluded string         `json:"licenseConcluded"`
	Declared  string         `json:"licenseDeclared"`
	Copyright string         `json:"copyrightText"`
	Purpose   string         `json:"primaryPackagePurpose"`
	Checksums []spdxChecksum `json:"checksums,omitempty"`
	Refs      []spdxRef      `json:"externalRefs,omitempty"`
	Comment   string         `json:"comment,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	stdlib  = "stdlib" // what databases of vulnerabilities call the standard library of Go
	unknown = "NOASSERTION"
)

// sbom writes what a binary was made of, as the linker recorded it in the binary: all modules, and Go.
func (r *release) sbom(binary string, t target, info *debug.BuildInfo, licences map[string]licence) error {
	text, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	name := "curfew_" + r.version + "_" + t.String()
	doc := spdxDocument{Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace: "https://" + info.Main.Path + "/sbom/" + name + "-" + hex.EncodeToString(sum[:8]),
		Created:   spdxCreation{r.date.Format(time.RFC3339), []string{"Tool: curfew-release-" + r.version}},
		Packages: []spdxPackage{{ID: "SPDXRef-curfew", Name: "curfew", Version: r.version, Location: unknown,
			Concluded: "Apache-2.0", Declared: "Apache-2.0", Copyright: unknown, Purpose: "APPLICATION",
			Checksums: []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}}, Comment: "the file curfew for " + t.String(),
			Refs: []spdxRef{purl(info.Main.Path, r.version)}}},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-curfew"}},
	}
	add := func(path, version, licence, comment string) {
		id := fmt.Sprintf("SPDXRef-module-%d", len(doc.Packages))
		p := spdxPackage{ID: id, Name: path, Version: version, Location: unknown, Concluded: unknown,
			Declared: cmp.Or(licence, unknown), Copyright: unknown, Purpose: "LIBRARY",
			Refs: []spdxRef{purl(path, version)}, Comment: comment}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, spdxRelationship{"SPDXRef-curfew", "CONTAINS", id})
	}
	add(stdlib, strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go"), licences[stdlib].id, "")
	for _, m := range info.Deps {
		used := cmp.Or(m.Replace, m)
		add(used.Path, used.Version, licences[m.Path].id, hash(used))
	}
	return r.write(name+".spdx.json", func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(doc)
	})
}

// purl names a module as the package URL specification does for Go, which has paths in lower case.
func purl(path, version string) spdxRef {
	return spdxRef{"PACKAGE-MANAGER", "purl",
		"pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")}
}

// hash says what go.sum has for a module: the hash of the list of its files, not of one file.
func hash(m *debug.Module) string {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
	if err != nil || len(raw) != sha256.Size {
		return ""
	}
	return "go.sum " + m.Sum
}
