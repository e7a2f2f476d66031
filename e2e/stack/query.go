// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Series is a series of an instant query's result.
type Series struct {
	Labels map[string]string
	Value  float64
}

// Query sends an instant query to the server at base without using code of the exporter. At is a
// Unix time, or "" for the server's current time.
func Query(ctx context.Context, client *http.Client, base, expression, at string) ([]Series, error) {
	form := url.Values{"query": {expression}, "nocache": {"1"}} // Without nocache, VictoriaMetrics evaluates 30 s ago.
	if at != "" {
		form.Set("time", at)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/query?"+form.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()

	var body struct {
		Status string
		Error  string
		Data   struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return nil, err
	}
	if body.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expression, body.Error)
	}

	var all []Series
	for _, r := range body.Data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: the value of %v: %w", expression, r.Metric, err)
		}
		all = append(all, Series{Labels: r.Metric, Value: v})
	}

	return all, nil
}
