package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/terminal"
	"example.com/curfew/console"
)

// adminClient calls the private listener of a running gateway.
type adminClient struct {
	base     string
	operator string // who this is, for the audit record
}

func adminFlag(cmd *cobra.Command, p *process) *adminClient {
	c := &adminClient{operator: p.operator()}
	cmd.PersistentFlags().StringVar(&c.base, "admin", "http://127.0.0.1:4181", "the private listener of the gateway")
	return c
}

func (c *adminClient) do(ctx context.Context, method, path string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*console.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base, "/")+path, nil)
	if err != nil || r.URL.Host == "" {
		return exit{2, fmt.Errorf("--admin %s: want a URL like http://127.0.0.1:4181", config.Masked(c.base))}
	}
	if strings.ContainsFunc(c.operator, unicode.IsControl) {
		return exit{2, errors.New("the name of the operator (CURFEW_OPERATOR, SUDO_USER, USER or LOGNAME) has control " +
			"characters: set CURFEW_OPERATOR to one without")}
	}
	r.Header.Set(console.OperatorHeader, url.PathEscape(c.operator))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("the gateway does not answer at %s (see --admin): %w", config.Masked(c.base),
			errors.Unwrap(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("the gateway broke off: %w", err)
	}
	answered := resp.Status
	if resp.StatusCode == http.StatusOK {
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber() // the claims of a person keep their digits
		if d.Decode(to) == nil {
			return nil
		}
		answered += ", " + cmp.Or(resp.Header.Get("Content-Type"), "without a type")
	}
	var said struct {
		Error string `json:"error"`
	}
	// The private listener asks nobody who they are; the public one does.
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized ||
		json.Unmarshal(body, &said) != nil || said.Error == "" {
		return fmt.Errorf("this is not the private listener of a curfew gateway of this release: see --admin "+
			"(%s answered %s)", config.Masked(c.base), terminal.Printable(answered))
	}
	return errors.New(terminal.Printable(said.Error))
}

var errEmptyID = errors.New("an ID is empty")

// noticeFilter selects the notices that a command is about.
type noticeFilter struct{ kind, target, state string }

func (f noticeFilter) query(after string, limit int) string {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, v := range map[string]string{"kind": f.kind, "target": f.target, "state": f.state, "after": after} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return "/api/notices?" + q.Encode()
}

func newNoticeCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notice",
		Short: "List, retry or drop notices: apps to notify, tokens to revoke",
		Long: `A session that ends leaves notices: an app must be notified, a refresh token must be revoked. Each is
tried until it succeeds. One that is given up stays as a dead letter until an operator retries or drops it.`,
		Args: cobra.ArbitraryArgs, RunE: chooseCommand,
	}
	client := adminFlag(cmd, p)
	cmd.AddCommand(newNoticeListCmd(p, client), newNoticeShowCmd(p, client),
		newNoticeActionCmd(p, client, "retry", "Try notices now, also dead letters, for another 24 hours",
			"tried again"),
		newNoticeActionCmd(p, client, "drop", "Delete notices without carrying them out", "dropped"))
	return cmd
}

func newNoticeListCmd(p *process, client *adminClient) *cobra.Command {
	var f noticeFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List notices", Args: cobra.NoArgs,
		Example: "  curfew notice list --state dead --target wiki",
	}
	limit := cmd.Flags().Int("limit", 100, "how many at most")
	asJSON := cmd.Flags().Bool("json", false, "print JSON, one notice a line")
	cmd.Flags().StringVar(&f.state, "state", "", "pending or dead")
	cmd.Flags().StringVar(&f.target, "target", "", "of one app, or one provider")
	cmd.Flags().StringVar(&f.kind, "kind", "", "logout or revoke")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 1 {
			return exit{2, errors.New("--limit: want 1 or more")}
		}
		var all []console.Notice
		more := ""
		for after := ""; len(all) < *limit; {
			var page console.NoticePage
			query := f.query(after, min(1000, *limit-len(all)))
			if err := client.do(cmd.Context(), http.MethodGet, query, &page); err != nil {
				return err
			}
			all = append(all, page.Notices...)
			if after, more = page.Next, page.Next; after == "" {
				break
			}
		}
		if *asJSON {
			e := json.NewEncoder(p.stdout)
			for _, n := range all {
				if err := e.Encode(n); err != nil {
					return err
				}
			}
			return nil
		}
		t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tSTATE\tKIND\tTARGET\tSUBJECT\tCREATED\tTRIES\tREASON")
		for _, n := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", n.ID, n.State, n.Kind,
				terminal.Printable(n.Target), terminal.Printable(n.Subject),
				n.Created.Format(time.RFC3339), n.Attempts, terminal.Printable(n.Reason))
		}
		if more != "" {
			fmt.Fprintln(t, "… and more: raise --limit")
		}
		return t.Flush()
	}
	return cmd
}

func newNoticeShowCmd(p *process, client *adminClient) *cobra.Command {
	return &cobra.Command{Use: "show ID", Short: "Show the details of a notice", Args: takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n console.Notice
			path := "/api/notices/" + url.PathEscape(args[0])
			if err := client.do(cmd.Context(), http.MethodGet, path, &n); err != nil {
				return err
			}
			e := json.NewEncoder(p.stdout)
			e.SetIndent("", "  ")
			return e.Encode(n)
		}}
}

// newNoticeActionCmd returns a command for notices given by ID, or for all dead letters, or those of one target.
func newNoticeActionCmd(p *process, client *adminClient, verb, short, done string) *cobra.Command {
	f := noticeFilter{state: "dead"}
	cmd := &cobra.Command{Use: verb + " ID... | --dead [--target NAME]", Short: short, Args: cobra.ArbitraryArgs}
	dead := cmd.Flags().Bool("dead", false, "all dead letters")
	cmd.Flags().StringVar(&f.target, "target", "", "with --dead: those of one app, or one provider")
	cmd.Flags().StringVar(&f.kind, "kind", "", "with --dead: logout or revoke")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if *dead == (len(ids) > 0) || !*dead && (f.target != "" || f.kind != "") {
			return exit{2, errors.New("name the notices, or say --dead")}
		}
		if slices.Contains(ids, "") {
			return exit{2, errEmptyID}
		}
		if *dead {
			for after := ""; ; {
				var page console.NoticePage
				if err := client.do(cmd.Context(), http.MethodGet, f.query(after, 1000), &page); err != nil {
					return err
				}
				for _, n := range page.Notices {
					ids = append(ids, n.ID)
				}
				if after = page.Next; after == "" {
					break
				}
			}
		}
		n := 0
		var err error
		for _, id := range ids {
			path := "/api/notices/" + url.PathEscape(id) + "/" + verb
			if err = client.do(cmd.Context(), http.MethodPost, path, &struct{}{}); err != nil {
				err = fmt.Errorf("notice %s: %w", id, err)
				break
			}
			n++
		}
		if err == nil || n > 0 {
			fmt.Fprintf(p.stdout, "%s %s\n", terminal.Count(n, "notice"), done)
		}
		return err
	}
	return cmd
}

func newKeyCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "List and replace the keys that sign logout tokens for apps",
		Args: cobra.ArbitraryArgs, RunE: chooseCommand,
	}
	client := adminFlag(cmd, p)
	show := func(all console.KeyList) error {
		t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "KID\tALG\tCREATED\tSIGNS FROM\tNOW")
		for _, k := range all.Keys {
			now := "published"
			if k.Signs {
				now = "signs"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n",
				k.ID, k.Alg, k.Created.Format(time.RFC3339), k.Active.Format(time.RFC3339), now)
		}
		return t.Flush()
	}
	list := &cobra.Command{
		Use: "list", Short: "List the keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all console.KeyList
			if err := client.do(cmd.Context(), http.MethodGet, "/api/keys", &all); err != nil {
				return err
			}
			return show(all)
		},
	}
	rotate := &cobra.Command{
		Use: "rotate", Short: "Create new keys; they are published now and sign after an hour", Args: cobra.NoArgs,
		Long: `Creates a new key for each algorithm in use. It is published now and signs after an hour, when apps that
cache keys have fetched it. The old key stays published until its last token has expired.

Use --now if keys have become known to others: the new ones sign at once and the old ones are removed. Apps refuse
logout tokens until they fetch the keys again; their notices are repeated.`,
	}
	now := rotate.Flags().Bool("now", false, "sign with the new keys at once, and remove the old ones")
	rotate.RunE = func(cmd *cobra.Command, _ []string) error {
		var all console.KeyList
		path := "/api/keys/rotate?now=" + strconv.FormatBool(*now)
		if err := client.do(cmd.Context(), http.MethodPost, path, &all); err != nil {
			return err
		}
		return show(all)
	}
	cmd.AddCommand(list, rotate)
	return cmd
}
