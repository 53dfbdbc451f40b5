package e2e_test

import (
	"bytes"
	"fmt"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"example.com/curfew/internal/chromium"
)

// mostPicture is how many bytes a picture in the documentation may have.
const mostPicture = 150 << 10

// pictures takes the pictures of Keycloak's console that docs/providers/keycloak.md shows. They are taken when tables
// are written, since a console looks a little different on each machine.
func (k *keycloak) pictures(t *testing.T) {
	if *interop != "write" {
		t.Skip("the pictures of the console are taken with TABLES=write")
	}
	const realm = "example"
	k.makeRealm(t, realm, nil)
	id := k.Admin(t, http.MethodPost, "/"+realm+"/clients", object{"clientId": "app", "secret": "secret",
		"publicClient": false, "frontchannelLogout": false, "redirectUris": []string{"https://app.example.com/auth/callback"},
		"attributes": object{"backchannel.logout.url": "https://app.example.com/auth/backchannel-logout",
			"backchannel.logout.session.required": "true",
			"post.logout.redirect.uris":           "https://app.example.com/auth/logout/callback"}}, nil)
	b := &tab{t, chromium.Start(t, 4*patience, "no pictures of Keycloak's console were taken")}
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(1000, 620)); err != nil {
		t.Fatal(err)
	}
	b.open(k.URL + "/admin/master/console/#/" + realm + "/clients/" + id + "/settings")
	b.until(`document.querySelector("#password")`)
	b.run(`for (const name of ["username", "password"]) document.getElementById(name).value = "admin";
		document.querySelector("form").submit()`)
	for _, section := range []struct{ title, name string }{
		{"Access settings", "access"}, {"Capability config", "capability"}, {"Logout settings", "logout"},
	} {
		heading := fmt.Sprintf(`[...document.querySelectorAll("h1, h2, h3")].find(e => e.textContent.trim() === %q)`,
			section.title)
		b.until(heading)
		b.run(heading + `.scrollIntoView({block: "start"})`)
		b.until(heading + `.getBoundingClientRect().top < 500`)
		b.picture("keycloak-" + section.name)
	}
}

// picture writes what a tab shows into docs/providers.
func (b *tab) picture(name string) {
	t := b.t
	t.Helper()
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	small := new(bytes.Buffer)
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(small, shown); err != nil {
		t.Fatal(err)
	}
	if small.Len() > mostPicture {
		t.Errorf("the picture of %s has %d bytes", name, small.Len())
	}
	file := filepath.Join("..", "docs", "providers", name+".png")
	if err := os.WriteFile(file, small.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
