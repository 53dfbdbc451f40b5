package main

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/curfew/console"
)

// completeTime is how long the shell waits for the names of providers.
const completeTime = 2 * time.Second

// addCompletions adds to all commands what a shell completes beside their names and flags: the values of flags that
// have few, and the names of providers, which the private listener is asked for. The shell completes files itself, for
// what may be one.
func addCompletions(cmd *cobra.Command, p *process) {
	for _, sub := range cmd.Commands() {
		addCompletions(sub, p)
	}
	choices := map[string][]string{
		"type": typeNames(), "result": {"ok", "refused", "unavailable", "replayed"}, "state": {"pending", "dead"},
		"kind": {"logout", "revoke"}, "log-format": {"text", "json"}, "log-level": {"debug", "info", "warn", "error"},
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		complete := cobra.NoFileCompletions
		if some, ok := choices[f.Name]; ok {
			complete = cobra.FixedCompletions(some, cobra.ShellCompDirectiveNoFileComp)
		} else if f.Name == "provider" {
			complete = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
				return providerNames(cmd, p), cobra.ShellCompDirectiveNoFileComp
			}
		} else if usage := f.Value.Type(); usage == "FILE" || usage == "PATH" || usage == "URL" || usage == "ADDRESS" {
			return // maybe a file: the shell's own
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, complete) // it fails for a flag that has one
	})
	if cmd.InheritedFlags().Lookup("admin") != nil || cmd.Flags().Lookup("admin") != nil {
		cmd.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	}
}

// providerNames asks the private listener, and returns nothing if it does not answer soon.
func providerNames(cmd *cobra.Command, p *process) (names []string) {
	admin := cmd.Flag("admin")
	if admin == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	var all console.ProviderList
	client := &adminClient{base: admin.Value.String(), operator: p.operator()}
	if client.do(ctx, http.MethodGet, "/api/providers", &all) != nil {
		return nil
	}
	for _, one := range all.Providers {
		names = append(names, one.Name)
	}
	return names
}
