// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

// FuzzDecode holds the decoder to encoding/json: it accepts a response only if encoding/json finds
// the same numbers and labels in it.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		`{"status":"success","data":{"resultType":"vector",` +
			`"result":[{"metric":{"a":"b\n\"é"},"value":[1700000000.123,"NaN"]}]}}`,
		`{"data":{"result":[{"value":[1,"1e3"],"metric":{}}],"resultType":"vector"},` +
			`"status":"success","warnings":["x"]}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,null]},null]}}`,
		`{"status":"success","warnings":["PromQL warning: x","y"],"infos":["z"],` +
			`"data":{"resultType":"vector","result":[]}}`,
		`{"status":"success","warnings":null,"data":{"resultType":"vector","result":[]}}`,
		`{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`,
		`{"status":"success","data":{"resultType":"vector",` +
			`"result":[{"metric":{"a":"\ud800"},"histogram":[1,{}]}]}}`,
	} {
		f.Add(body)
	}
	var response atomic.Value
	base := startServer(f, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, response.Load()) })

	f.Fuzz(func(t *testing.T, body string) {
		response.Store(body)

		result, err := newClient(t, "", base).Query(t.Context(), "x", time.Unix(1, 0))
		if err != nil {
			if _, ok := httpclient.AsError(err); !ok {
				t.Errorf("error is a %T", err)
			}
			return
		}
		requireSameVector(t, body, result.Vector)
	})
}

// requireSameVector requires that encoding/json decodes body as vector.
func requireSameVector(t *testing.T, body string, vector promql.Vector) {
	t.Helper()

	var want struct {
		Status    string
		IsPartial bool
		Warnings  []string
		Data      struct {
			ResultType string
			Result     []struct {
				Metric map[string]string
				Value  []any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		t.Fatalf("accepted invalid JSON: %v", err)
	}
	if want.Status != "success" || want.IsPartial || slices.ContainsFunc(want.Warnings, isNoAnnotation) {
		t.Fatalf("accepted a response that is partial or failed: %+v", want)
	}
	if len(want.Data.Result) != len(vector) {
		t.Fatalf("decoded %d series from %+v", len(vector), want)
	}

	for i, s := range want.Data.Result {
		v, err := strconv.ParseFloat(s.Value[1].(string), 64)
		if err != nil || len(s.Value) != 2 || math.Float64bits(v) != math.Float64bits(vector[i].F) {
			t.Errorf("series %d: decoded %v as %v", i, s.Value, vector[i].F)
		}

		for name, value := range s.Metric {
			got := vector[i].Metric.Get(name)
			if got != value && strings.ToValidUTF8(got, "\ufffd") != value {
				t.Errorf("series %d: label %s is %q, want %q", i, name, got, value)
			}
		}
	}
}

// isNoAnnotation reports whether a warning is not about the expression.
func isNoAnnotation(warning string) bool { return !strings.HasPrefix(warning, "PromQL ") }

// BenchmarkQuery decodes a response with 250 stores of seven buckets each.
func BenchmarkQuery(b *testing.B) {
	const stores, buckets = 250, 7

	var series []string
	for i := range stores * buckets {
		series = append(series, fmt.Sprintf(
			`{"metric":{"instance":"tikv-%d:20180","job":"tikv","le":"0.0%d"},"value":[1700000000.123,"%d.5"]}`,
			i/buckets, i%buckets+1, i))
	}
	body := `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(series, ",") + `]}}`
	client := newClient(b, "", startServer(b, respond(200, body)))

	b.SetBytes(int64(len(body)))
	b.ReportAllocs()

	for b.Loop() {
		r, err := client.Query(b.Context(), "x", time.Unix(1, 0))
		if err != nil || len(r.Vector) != stores*buckets {
			b.Fatal(len(r.Vector), err)
		}
	}
}
