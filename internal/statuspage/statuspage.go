// SPDX-License-Identifier: Apache-2.0

// Package statuspage renders the status page as HTML.
package statuspage

import (
	"crypto/sha256"
	_ "embed" // The page and its style sheet.
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/report"
)

// Page is the content of the status page.
type Page struct {
	Reports       []report.Report
	Clusters      []string     // The clusters that the request named; none if it named none.
	Config        fmt.Stringer // Without secrets.
	TelemetryPath string
	Version       string
	Now           time.Time
}

const documentationURL = "https://github.com/operator-store/operator_store_exporter#readme"

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
)

// PagePolicy is the Content-Security-Policy of the page: it loads, runs and sends nothing, and its
// only style is its own.
var PagePolicy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; "+
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hash(pageCSS))

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))

	return base64.StdEncoding.EncodeToString(sum[:])
}

// WritePage writes the page. Everything that upstream returns is shown as text, whatever it
// contains.
func WritePage(w io.Writer, p Page) error { return pageTemplate.Execute(w, newPageView(p)) }
