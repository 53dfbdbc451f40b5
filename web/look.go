package web

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"image/color"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Look says how the pages for people look. The zero value is our own look.
type Look struct {
	Name   string // of the site, on each page; default: the host
	Footer string // a line of plain text at the foot of each page
	Help   string // where people find help: an https: URL, or mailto: with an address

	// Logo is the image above each page: PNG, JPEG, GIF, WebP or SVG, of at most 256 KiB. An SVG cannot run scripts.
	Logo []byte

	// Light and Dark are the colours for the two schemes that browsers may prefer.
	Light, Dark Colors

	// Messages has a file like de.json for each further language, or to change texts of ours; see docs/pages.md. Nil:
	// English and French.
	Messages fs.FS
	// Templates has page.html, page.css, or both, in place of ours; see [PageData]. Nil: ours.
	Templates fs.FS
}

// Colors are colours of CSS: #rgb, #rrggbb or rgb(r, g, b). Empty ones are ours. Texts need a contrast of 4.5 to what
// is behind them (WCAG 2.2 §1.4.3). What is written on the accent is dark or white, whichever is legible.
type Colors struct {
	Background string // of the page
	Surface    string // of the card with the text
	Text       string
	Muted      string // of small print
	Line       string // around buttons and the card
	Accent     string // of the main button
}

const (
	maxLogo     = 256 << 10
	maxLine     = 200 // characters of Name and Footer
	minContrast = 4.5 // WCAG 2.2 §1.4.3, level AA
)

// check returns what is wrong with the texts and the logo of a look.
func (l *Look) check() error {
	var faults []error
	fault := func(what string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", what, err))
		}
	}
	fault("name", checkLine(l.Name))
	fault("footer", checkLine(l.Footer))
	fault("help", checkHelp(l.Help))
	if len(l.Logo) > 0 {
		_, err := imageType(l.Logo)
		fault("logo", err)
	}
	return errors.Join(faults...)
}

func checkLine(text string) error {
	switch {
	case !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxLine:
		return fmt.Errorf("must have at most %d characters", maxLine)
	case escapeHidden(text, harmless) != text:
		return errors.New("must be one line without characters that are invisible or change the direction of text")
	}
	return nil
}

func checkHelp(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	switch {
	case err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil:
		return nil
	case err == nil && u.Scheme == "mailto" && strings.Contains(u.Opaque, "@") &&
		!strings.ContainsFunc(raw, unicode.IsSpace):
		return nil
	}
	return errors.New("must begin with https:// and a host, or be mailto: with an address")
}

// imageType returns the media type of a logo.
func imageType(body []byte) (string, error) {
	if len(body) > maxLogo {
		return "", fmt.Errorf("has %d bytes; the most is %d", len(body), maxLogo)
	}
	switch kind := http.DetectContentType(body); kind {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
		return kind, nil
	}
	decoder := xml.NewDecoder(bytes.NewReader(body))
	for {
		token, err := decoder.Token()
		if err != nil {
			break
		}
		if root, ok := token.(xml.StartElement); ok {
			if root.Name.Local == "svg" && root.Name.Space == "http://www.w3.org/2000/svg" {
				return "image/svg+xml", nil
			}
			break
		}
	}
	return "", errors.New("is not a PNG, JPEG, GIF, WebP or SVG image")
}

// ourColors are those of our own look.
func ourColors(dark bool) Colors {
	if dark {
		return Colors{Background: "#12141b", Surface: "#1a1d27", Text: "#e9e7e1", Muted: "#9a9fae", Line: "#2c303d",
			Accent: "#aebdf5"}
	}
	return Colors{Background: "#f4f3ef", Surface: "#fffefb", Text: "#23262f", Muted: "#5c616e", Line: "#e2dfd6",
		Accent: "#34478f"}
}

// variables returns the colours as custom properties of CSS. Nothing of what was configured gets there but numbers.
func (c Colors) variables(dark bool) (string, error) {
	ours := ourColors(dark)
	var css strings.Builder
	var faults []error
	read := func(name, given, otherwise string) color.RGBA {
		v, err := parseColor(cmp.Or(given, otherwise))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
		return v
	}
	put := func(name string, v color.RGBA) { fmt.Fprintf(&css, "--%s:#%02x%02x%02x;", name, v.R, v.G, v.B) }
	background, surface := read("background", c.Background, ours.Background), read("surface", c.Surface, ours.Surface)
	ink, soft := read("text", c.Text, ours.Text), read("muted", c.Muted, ours.Muted)
	line, accent := read("line", c.Line, ours.Line), read("accent", c.Accent, ours.Accent)
	on := color.RGBA{0x14, 0x17, 0x2a, 0xff}
	if white := (color.RGBA{0xff, 0xff, 0xff, 0xff}); contrast(accent, white) > contrast(accent, on) {
		on = white
	}
	if contrast(accent, on) < minContrast {
		on = color.RGBA{A: 0xff}
	}
	for _, pair := range []struct {
		name, behind string
		text, under  color.RGBA
	}{
		{"text", "background", ink, background}, {"text", "surface", ink, surface},
		{"muted", "background", soft, background}, {"muted", "surface", soft, surface},
	} {
		if got := contrast(pair.text, pair.under); got < minContrast && len(faults) == 0 {
			faults = append(faults, fmt.Errorf("%s has a contrast of %.1f to %s: it needs %.1f to be legible", pair.name,
				got, pair.behind, minContrast))
		}
	}
	put("paper", background)
	put("card", surface)
	put("ink", ink)
	put("soft", soft)
	put("line", line)
	put("accent", accent)
	put("on", on)
	return css.String(), errors.Join(faults...)
}

var (
	hexColor = regexp.MustCompile(`^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)
	rgbColor = regexp.MustCompile(`^rgb\( *([0-9]{1,3})(?: *, *| +)([0-9]{1,3})(?: *, *| +)([0-9]{1,3}) *\)$`)
)

func parseColor(text string) (color.RGBA, error) {
	if hexColor.MatchString(text) {
		hex := text[1:]
		if len(hex) == 3 {
			hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
		}
		n, _ := strconv.ParseUint(hex, 16, 32)
		return color.RGBA{uint8(n >> 16), uint8(n >> 8), uint8(n), 0xff}, nil
	}
	if m := rgbColor.FindStringSubmatch(text); m != nil {
		var v [3]uint8
		for i := range v {
			n, err := strconv.ParseUint(m[i+1], 10, 8)
			if err != nil {
				return color.RGBA{}, fmt.Errorf("%q is not a colour: its numbers are from 0 to 255", Clip(text))
			}
			v[i] = uint8(n)
		}
		return color.RGBA{v[0], v[1], v[2], 0xff}, nil
	}
	return color.RGBA{}, fmt.Errorf("%q is not a colour: write it like #34478f or rgb(52, 71, 143)", Clip(text))
}

// contrast returns the contrast ratio of two colours, from 1 to 21 (WCAG 2.2, "contrast ratio").
func contrast(a, b color.RGBA) float64 {
	light := func(c color.RGBA) float64 {
		part := func(v uint8) float64 {
			s := float64(v) / 255
			if s <= 0.04045 {
				return s / 12.92
			}
			return math.Pow((s+0.055)/1.055, 2.4)
		}
		return 0.2126*part(c.R) + 0.7152*part(c.G) + 0.0722*part(c.B)
	}
	x, y := light(a), light(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}
