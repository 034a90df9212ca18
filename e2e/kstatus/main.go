// Command paifang-kstatus says what kstatus makes of objects: the library by which Flux and Helm wait for them. It reads a list of
// objects as JSON and writes a line for each: kind, name, status (Current, InProgress, Failed, Terminating, NotFound, Unknown), message.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var list unstructured.UnstructuredList
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return fmt.Errorf("no list of objects as JSON: %w", err)
	}
	for at := range list.Items {
		object := &list.Items[at]
		result, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		fmt.Printf("%s %s %s %s\n", object.GetKind(), object.GetName(), result.Status, result.Message)
	}
	return nil
}
