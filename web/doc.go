// Package web turns what a room decided into what a browser or a program hears.
//
// It owns the site's own addresses ([Site]), the three ways to answer ([Site.Page], [Site.JSON], [Site.Protocol]), the
// line between what the caller is told and what we log ([Fail]), the look of the few pages that we show
// ([Site.Render]), redirects that stay on this site ([ReturnTo]), and the client's address behind trusted proxies
// ([Site.ClientAddr]).
//
// It knows nothing of sessions, tokens or providers, and decides nothing about them.
package web
