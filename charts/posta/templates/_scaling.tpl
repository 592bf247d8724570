{{/* What a service scales by: the rows of its meters that are looked at, each with the `carries` of one pod. */}}
{{- define "posta.measures" -}}
{{- range $key := list "target" "messages" }}
{{- $meter := get $.service.row.meters $key }}
{{- if gt (float64 (get $.service.autoscaling $key)) 0.0 }}
{{- if not $meter }}{{- fail (printf "services.%s.autoscaling.%s: it has no such measure" $.name $key) }}{{- end }}
- {{ merge (dict "carries" (get $.service.autoscaling $key)) $meter | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{/* A measure as Prometheus is asked for it: the sum over the service's pods, or the one figure that is shared. */}}
{{- define "posta.scaleQuery" -}}
{{- $select := printf "namespace=%q" .root.Release.Namespace -}}
{{- if .measure.shared -}}
max({{ .measure.name }}{ {{- range $label, $value := .measure.by }}{{ $label }}={{ $value | quote }},{{ end }}{{ $select -}} })
{{- else if .measure.rate -}}
sum(rate({{ .measure.name }}{ {{- $select -}} }[2m]))
{{- else -}}
sum({{ .measure.name }}{ {{- $select -}} })
{{- end -}}
{{- end }}
