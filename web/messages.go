package web

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/text/language"
	"golang.org/x/text/unicode/bidi"
)

//go:embed messages
var messageFiles embed.FS

// maxMessages is how many bytes a file of messages may have.
const maxMessages = 1 << 20

// catalogue holds the texts of the pages in each language. A text is found by its English form as the source has it. A
// text that is not there, such as that of an app, stays as it is.
type catalogue struct {
	matcher   language.Matcher
	languages []*tongue // in the order of matcher; English is the first
	known     map[string]string
}

// tongue is one language.
type tongue struct {
	tag, dir string
	texts    map[string]string
}

// newCatalogue reads our own languages, and those of the files `*.json` in more, if that is not nil. A file is named
// after its language (BCP 47) and is an object of texts by their English form. It replaces texts of ours, and may have
// others. The error lists every fault; incomplete says which languages lack texts of ours.
func newCatalogue(more fs.FS) (c *catalogue, incomplete []string, err error) {
	c = &catalogue{}
	var faults []error
	ours, err := fs.Sub(messageFiles, "messages")
	if err != nil {
		return nil, nil, err
	}
	if err := c.read(ours); err != nil {
		return nil, nil, err
	}
	c.known = make(map[string]string)
	for text := range c.languages[0].texts {
		c.known[text] = text
	}
	if more != nil {
		faults = append(faults, c.read(more))
	}
	tags := make([]language.Tag, len(c.languages))
	for i, t := range c.languages {
		tags[i] = language.MustParse(t.tag)
		missing := 0
		for text := range c.known {
			if _, ok := t.texts[text]; !ok {
				missing++
			}
		}
		if missing > 0 {
			incomplete = append(incomplete, fmt.Sprintf("%s.json lacks %d of %d texts, which stay English",
				t.tag, missing, len(c.known)))
		}
	}
	c.matcher = language.NewMatcher(tags)
	return c, incomplete, errors.Join(faults...)
}

// read adds the files of a folder.
func (c *catalogue) read(folder fs.FS) error {
	names, err := fs.Glob(folder, "*.json")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("there is no file of messages, named like de.json")
	}
	var faults []error
	for _, name := range names {
		if err := c.readFile(folder, name); err != nil {
			faults = append(faults, prefixed(name+": ", err))
		}
	}
	return errors.Join(faults...)
}

func (c *catalogue) readFile(folder fs.FS, name string) error {
	tag, err := language.Parse(strings.TrimSuffix(path.Base(name), ".json"))
	if err != nil {
		return errors.New("is not named after a language, like de.json or pt-BR.json")
	}
	body, err := readBounded(folder, name, maxMessages)
	if err != nil {
		return err
	}
	texts := make(map[string]string)
	if err := json.Unmarshal(body, &texts); err != nil {
		return fmt.Errorf("want an object of texts by their English form: %w", err)
	}
	var faults []error
	for text, said := range texts {
		if want, got := placeholders(text), placeholders(said); !slices.Equal(want, got) {
			faults = append(faults, fmt.Errorf("%q: its placeholders are %q, and not %q", Clip(text), got, want))
		}
		if strings.TrimSpace(said) == "" {
			faults = append(faults, fmt.Errorf("%q: the text is empty", Clip(text)))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	i := slices.IndexFunc(c.languages, func(t *tongue) bool { return t.tag == tag.String() })
	if i < 0 {
		i = len(c.languages)
		c.languages = append(c.languages, &tongue{tag: tag.String(), dir: direction(tag), texts: map[string]string{}})
	}
	for text, said := range texts {
		c.languages[i].texts[text] = said
	}
	return nil
}

// readBounded reads a file that has at most so many bytes.
func readBounded(folder fs.FS, name string, most int64) ([]byte, error) {
	info, err := fs.Stat(folder, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("is not a file of at most %d bytes", most)
	}
	return fs.ReadFile(folder, name)
}

// direction returns the direction in which a language is written.
func direction(tag language.Tag) string {
	script, _ := tag.Script()
	switch script.String() {
	case "Adlm", "Arab", "Hebr", "Mand", "Mend", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa", "Yezi":
		return "rtl"
	}
	return "ltr"
}

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// placeholders returns the placeholders of a text, each once, in the order of their names.
func placeholders(text string) []string {
	all := placeholder.FindAllString(text, -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// maxAccepted is how many bytes of an Accept-Language header are read. Browsers send far fewer.
const maxAccepted = 200

// choose returns the language for an Accept-Language header (RFC 9110 §12.5.4): English if none of ours is wanted. Of a
// long header only the beginning is read.
func (c *catalogue) choose(accepted string) *tongue {
	if len(accepted) > maxAccepted {
		accepted = accepted[:strings.LastIndexByte(accepted[:maxAccepted], ',')+1]
		accepted = strings.TrimSuffix(accepted, ",")
	}
	if accepted == "" {
		return c.languages[0]
	}
	wanted, _, err := language.ParseAcceptLanguage(accepted)
	if err != nil {
		return c.languages[0]
	}
	_, i, confidence := c.matcher.Match(wanted...)
	if confidence == language.No {
		i = 0
	}
	return c.languages[i]
}

// Words are the texts of the pages in one language, for what is shown elsewhere.
type Words struct {
	Lang, Dir string // the language (BCP 47) and its direction
	language  *tongue
}

// Words returns those of the language that the browser of a request asks for. What is made of them depends on
// Accept-Language, which an answer that may be cached says in Vary.
func (s *Site) Words(r *http.Request) Words {
	t := s.pages().texts.choose(r.Header.Get("Accept-Language"))
	return Words{t.tag, t.dir, t}
}

// Say returns a text of the catalogue, given in English.
func (w Words) Say(text string) string { return w.language.say(text, nil) }

// say returns a text in this language, with its placeholders replaced.
func (t *tongue) say(text string, args map[string]string) string {
	if said, ok := t.texts[text]; ok {
		text = said
	}
	return fill(text, args)
}

// fill replaces each {name} by the argument of that name, once: an argument is never searched for placeholders.
// Arguments may be text of strangers: they are cut, and characters that are invisible or change the direction of text
// are escaped. One that is written from right to left is isolated from the text around it (Unicode UAX #9).
func fill(text string, args map[string]string) string {
	if len(args) == 0 || !strings.Contains(text, "{") {
		return text
	}
	return placeholder.ReplaceAllStringFunc(text, func(name string) string {
		arg, ok := args[name[1:len(name)-1]]
		if !ok {
			return name
		}
		arg = escapeHidden(Clip(arg), harmless)
		if strings.ContainsFunc(arg, rightToLeft) {
			arg = firstStrong + arg + popIsolate
		}
		return arg
	})
}

func rightToLeft(c rune) bool {
	p, _ := bidi.LookupRune(c)
	return p.Class() == bidi.R || p.Class() == bidi.AL
}

const (
	// harmless are characters that are invisible, and that the spelling of some languages and emoji needs: joiners, and
	// the spaces of French punctuation.
	harmless    = "\u00a0\u202f\u200c\u200d"
	firstStrong = "\u2068"
	popIsolate  = "\u2069"
)
