// Package web turns the decisions of other packages into HTTP responses for browsers and programs.
//
// It defines the site's addresses ([Site]), the three kinds of answers ([Site.Page], [Site.JSON], [Site.Protocol]),
// what a client is told and what is logged ([Fail]), the look of the pages ([Site.Render]), redirects that stay on this
// site ([ReturnTo]), and the client's address behind trusted proxies ([Site.ClientAddr]).
//
// It knows nothing of sessions, tokens or providers, and decides nothing about them.
package web
