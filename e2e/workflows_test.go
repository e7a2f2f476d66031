// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// workflow is a workflow of GitHub Actions.
type workflow struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		Timeout int `yaml:"timeout-minutes"`
		Steps   []workflowStep
	}
}

type workflowStep struct {
	Uses, Run, If string
	Env, With     map[string]string
}

// workflowCommands are the commands that the workflows run.
var workflowCommands = map[string][]string{
	".github/workflows/ci.yml": {".ci/run"},
	".github/workflows/release.yml": {
		`test "$GITHUB_REF_NAME" = "v$(cat VERSION)"`,
		".ci/run",
		"make release",
		`gh release create "$GITHUB_REF_NAME" --verify-tag --title "$GITHUB_REF_NAME" --notes-from-tag .tarballs/*`,
	},
}

// actionInputs are the inputs of the actions that the workflows use.
var actionInputs = map[string]map[string]string{
	"actions/checkout": {"persist-credentials": "false"},
	"actions/setup-go": {"go-version-file": "go.mod"},
	"actions/cache":    {"path": ".bin"},
	"docker/build-push-action": {
		"context": ".", "build-args": "BINARIES=.build", "platforms": "linux/amd64,linux/arm64", "push": "true",
	},
}

// The workflows run .ci/run and make release, with no more permissions and time than that takes.
func TestWorkflows(t *testing.T) {
	t.Parallel()

	for file, want := range workflowCommands {
		t.Run(file, func(t *testing.T) {
			content := doctest.Read(t, file)
			var w workflow
			if err := yaml.Load([]byte(content), &w); err != nil {
				t.Fatal(err)
			}
			w.check(t, want)
			if err := actionlint(t, content); err != nil {
				t.Error(err)
			}
		})
	}

	const ci, release = ".github/workflows/ci.yml", ".github/workflows/release.yml"
	for _, tc := range []struct{ name, file, old, new string }{
		{name: "field of the workflow", file: ci, old: "permissions:", new: "permission:"},
		{name: "field of a job", file: ci, old: "timeout-minutes:", new: "timeout:"},
		{name: "input of an action", file: ci, old: "go-version-file:", new: "go-version-files:"},
		{name: "function", file: ci, old: "hashFiles(", new: "hashFile("},
		{name: "context", file: release, old: "${{ github.", new: "${{ githup."},
		{name: "permission", file: release, old: "contents: write", new: "content: write"},
	} {
		t.Run("misspelled "+tc.name, func(t *testing.T) {
			content := doctest.Read(t, tc.file)
			if !strings.Contains(content, tc.old) {
				t.Fatalf("%s lacks %q", tc.file, tc.old)
			}
			if actionlint(t, strings.ReplaceAll(content, tc.old, tc.new)) == nil {
				t.Errorf("actionlint accepts %q", tc.new)
			}
		})
	}
}

func (w workflow) check(t *testing.T, wantCommands []string) {
	t.Helper()

	if len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
		t.Errorf("the permissions are %v, want only contents: read", w.Permissions)
	}

	var commands []string
	for name, job := range w.Jobs {
		if job.Timeout <= 0 {
			t.Errorf("job %s has no timeout", name)
		}

		for _, step := range job.Steps {
			step.check(t)
			if step.Run != "" {
				commands = append(commands, step.Run)
			}
		}
	}
	if !slices.Equal(commands, wantCommands) {
		t.Errorf("the commands are %q, want %q", commands, wantCommands)
	}
}

var majorVersion = regexp.MustCompile(`^[a-z-]+/[a-z-]+@v\d+$`)

func (s workflowStep) check(t *testing.T) {
	t.Helper()

	if s.Uses != "" && !majorVersion.MatchString(s.Uses) {
		t.Errorf("%s is not pinned to a major version", s.Uses)
	}
	if strings.HasPrefix(s.Run, "gh ") && s.Env["GH_TOKEN"] == "" {
		t.Errorf("%q has no GH_TOKEN", s.Run)
	}

	action, _, _ := strings.Cut(s.Uses, "@")
	for key, want := range actionInputs[action] {
		if s.With[key] != want {
			t.Errorf("%s: %s is %q, want %q", s.Uses, key, s.With[key], want)
		}
	}
	if strings.HasPrefix(action, "docker/") && s.If != "vars.IMAGE != ''" {
		t.Errorf("%s runs if %q, want it to run only if there is an IMAGE", s.Uses, s.If)
	}
}

// actionlint returns the mistakes that GitHub would find in a workflow.
func actionlint(t *testing.T, content string) error {
	t.Helper()

	file := writeFile(t, "workflow.yml", content)
	cmd := exec.CommandContext(t.Context(), actionlintBinary, "-shellcheck=", "-pyflakes=", "-oneline", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
