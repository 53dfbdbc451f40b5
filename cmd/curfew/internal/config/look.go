package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"example.com/curfew/web"
)

// maxLogo is more than package web takes, so that it is what refuses a logo.
const maxLogo = 1 << 20

// setLook reads how the pages look, and the files that it names. Package web checks them.
func (c *Config) setLook(v value) error {
	var faults []error
	l := &c.Look
	inner := mapping(&faults, "{name: My Company, colors: {accent: \"#34478f\"}}", []setting{
		{key: "name", set: text(&l.Name)},
		{key: "footer", set: text(&l.Footer)},
		{key: "help", set: text(&l.Help)},
		{key: "logo_file", set: parsed(func(name string) (err error) { l.Logo, err = readLogo(name); return err })},
		{key: "colors", set: colors(&l.Light)},
		{key: "colors_dark", set: colors(&l.Dark)},
		{key: "messages_dir", set: folder(&l.Messages)},
		{key: "templates_dir", set: folder(&l.Templates)},
	})
	inner(v)
	if _, err := web.NewPages(*l); err != nil {
		faults = append(faults, OneLine(err))
	}
	return OneLine(errors.Join(faults...))
}

// mapping returns a function that reads a map into settings, and adds its faults.
func mapping(faults *[]error, example string, all []setting) func(value) {
	return func(v value) {
		*faults = append(*faults, settingsOf(v.tree(), example, all)...)
	}
}

// colors returns a setter for the colours of one scheme.
func colors(to *web.Colors) func(value) error {
	return func(v value) error {
		var faults []error
		mapping(&faults, `{accent: "#34478f"}`, []setting{
			{key: "background", set: text(&to.Background)},
			{key: "surface", set: text(&to.Surface)},
			{key: "text", set: text(&to.Text)},
			{key: "muted", set: text(&to.Muted)},
			{key: "line", set: text(&to.Line)},
			{key: "accent", set: text(&to.Accent)},
		})(v)
		return OneLine(errors.Join(faults...))
	}
}

func readLogo(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxLogo))
	if err == nil && len(body) == 0 {
		err = fmt.Errorf("%s is empty", name)
	}
	return body, err
}

// folder returns a setter for the files in a folder.
func folder(to *fs.FS) func(value) error {
	return parsed(func(name string) error {
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is not a folder", name)
		}
		*to = os.DirFS(name)
		return nil
	})
}
