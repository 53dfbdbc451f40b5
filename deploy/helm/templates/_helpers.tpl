{{- define "curfew.name" -}}
{{ if contains "curfew" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-curfew{{ end }}
{{- end -}}

{{- define "curfew.labels" -}}
app.kubernetes.io/name: curfew
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
